"""The network's shape: any size that is a multiple, one label map of the center slice."""

import pytest

from DiscRelaxometryLib.discs.network import CLASSES, NetworkConfig, build_network

torch = pytest.importorskip("torch")


def test_configuration_survives_json():
    config = NetworkConfig(channels=(8, 16), blocks=(1, 2))
    assert NetworkConfig.of(config.to_dict() | {"channels": [8, 16]}) == config


@pytest.mark.parametrize("size", [(32, 64), (96, 32)])
def test_output_has_the_input_size(size):
    network = build_network(NetworkConfig()).eval()
    with torch.inference_mode():
        assert network(torch.zeros(2, 5, *size)).shape == (2, len(CLASSES), *size)


def test_weights_fit_the_package():
    parameters = sum(p.numel() for p in build_network(NetworkConfig()).parameters())
    assert parameters * (2 + 4) < 20e6  # half precision in safetensors, single in ONNX


def test_odd_slice_alone_decides_when_neighbors_carry_no_weight():
    network = build_network(NetworkConfig()).eval()
    with torch.no_grad():
        first = network.encoder[0][0]
        for convolution in (first.conv1, first.skip):
            convolution.weight[:, [0, 1, 3, 4]] = 0
        stack = torch.randn(1, 5, 32, 32)
        other = stack.clone()
        other[:, [0, 1, 3, 4]] += 1
        assert torch.equal(network(stack), network(other))
