"""Train one fold: ``python -m Training.train --fold 0 --minutes 90``. Resumes from its last checkpoint."""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
from torch.nn import functional

from DiscRelaxometryLib.atomic import atomic_path
from DiscRelaxometryLib.network import DISC, DISC_L5S1, NetworkConfig, build_network
from Training.augment import Dice, sample
from Training.dataset import load_person, split

RUNS = Path(__file__).with_name("runs")
PEAK_RATE = 3e-3


class Samples(torch.utils.data.IterableDataset):
    """An endless stream of augmented samples, seeded by run and worker."""

    def __init__(self, persons: list, seed: int):
        self.persons, self.seed = persons, seed

    def __iter__(self):
        """Yield (stack, soft labels)."""
        torch.set_num_threads(1)
        info = torch.utils.data.get_worker_info()
        dice = Dice(torch.Generator().manual_seed(self.seed * 1000 + (info.id if info else 0)))
        while True:
            yield sample(self.persons[dice.integer(len(self.persons))], dice)


def learning_rate(progress: float) -> float:
    """One cycle: linear warm-up over 4 % of the run, then a cosine to 1 % of the peak."""
    if progress < 0.04:
        return PEAK_RATE * (0.05 + 0.95 * progress / 0.04)
    return PEAK_RATE * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - 0.04) / 0.96))))


def loss_of(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return cross-entropy plus soft Dice (over the batch) of each structure and of all discs together."""
    log = functional.log_softmax(logits.float(), 1)
    probability = log.exp()
    entropy = -(target * log).sum(1).mean()
    pairs = [(probability[:, c], target[:, c]) for c in range(1, logits.shape[1])]
    pairs.append((probability[:, DISC] + probability[:, DISC_L5S1], target[:, DISC] + target[:, DISC_L5S1]))
    dice = [1 - (2 * (p * t).sum() + 50) / (p.sum() + t.sum() + 50) for p, t in pairs]
    return entropy + torch.stack(dice).mean()


class Average:
    """Exponential moving average of weights and normalization statistics."""

    def __init__(self, network: torch.nn.Module):
        self.values = {k: v.detach().clone().float() for k, v in network.state_dict().items()}

    def update(self, network: torch.nn.Module, step: int) -> None:
        """Move towards the network's values; short memory at first."""
        decay = min(0.9985, (1 + step) / (20 + step))
        for key, value in network.state_dict().items():
            self.values[key].lerp_(value.detach().float(), 1 - decay)


def save(path: Path, **state) -> None:
    """Write a checkpoint atomically."""
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def average_gradients(network: torch.nn.Module, processes: int) -> None:
    """Replace each process's gradients by their mean over processes."""
    gradients = [p.grad for p in network.parameters()]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    torch.distributed.all_reduce(flat)
    for gradient, mean in zip(gradients, (flat / processes).split([g.numel() for g in gradients])):
        gradient.copy_(mean.view_as(gradient))


def shared(value: float, processes: int) -> float:
    """Return the first process's value in every process."""
    if processes == 1:
        return value
    box = torch.tensor([value], dtype=torch.float64)
    torch.distributed.broadcast(box, 0)
    return box.item()


def train(rank: int, options: argparse.Namespace) -> None:
    """Train a fold until `iterations`, or until `minutes` of training time have passed.

    The learning rate follows the share of the budget spent, so that a run on a busy machine still ends its cycle.
    With several processes each works on its share of the batch, on one core, and gradients are averaged once a
    step: on a shared machine two processes of one thread are faster than one process of two threads, whose every
    operation waits for the slower core.
    """
    device, processes = options.device, options.processes
    folder = options.runs / f"fold{options.fold}"
    folder.mkdir(parents=True, exist_ok=True)
    if processes > 1:
        torch.set_num_threads(1)
        torch.distributed.init_process_group("gloo", init_method=f"file://{(folder / 'rendezvous').resolve()}",
                                             rank=rank, world_size=processes)
    checkpoint = folder / "checkpoint.pt"
    names, inner, test = split(options.data, options.fold)
    config = NetworkConfig()
    torch.manual_seed(options.seed)
    network = build_network(config).to(device, memory_format=torch.channels_last)
    if options.start and not checkpoint.exists():
        from safetensors.torch import load_file
        network.load_state_dict({k: v.float() if v.is_floating_point() else v
                                 for k, v in load_file(options.start).items()})
    optimizer = torch.optim.AdamW(network.parameters(), lr=PEAK_RATE, weight_decay=1e-2)
    average, step, spent, resumed = Average(network), 0, 0.0, 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        average.values, step, spent, resumed = state["average"], state["step"], state["spent"], state["resumed"] + 1
    description = {"fold": options.fold, "seed": options.seed, "batch": options.batch, "minutes": options.minutes,
                   "iterations": options.iterations, "processes": processes, "train": names, "inner": inner,
                   "test": test, "config": config.to_dict(), "torch": torch.__version__, "device": device}
    if rank == 0:
        (folder / "run.json").write_text(json.dumps(description, indent=1))
    persons = [load_person(options.data, name) for name in names]
    samples = Samples(persons, options.seed + 7919 * resumed + 104729 * rank)
    loader = torch.utils.data.DataLoader(samples, options.batch // processes, num_workers=options.workers,
                                         prefetch_factor=4 if options.workers else None)
    total, started, last_saved, running = options.minutes * 60, time.time() - spent, time.time(), None
    network.train()
    for image, target in loader:
        spent = time.time() - started
        progress = step / options.iterations if options.iterations else shared(spent / total, processes)
        if progress >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(progress)
        image = image.to(device, memory_format=torch.channels_last)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            logits = network(image)
        loss = loss_of(logits, target.to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if processes > 1:
            average_gradients(network, processes)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        step += 1
        if rank:
            continue
        average.update(network, step - 1)
        running = loss.item() if running is None else 0.98 * running + 0.02 * loss.item()
        if step % 50 == 0:
            with open(folder / "log.tsv", "a", encoding="utf-8") as log:
                log.write(f"{step}\t{spent:.0f}\t{progress:.4f}\t{running:.4f}\n")
        if time.time() - last_saved > 180:
            save(checkpoint, network=network.state_dict(), optimizer=optimizer.state_dict(), average=average.values,
                 step=step, spent=spent, resumed=resumed)
            last_saved = time.time()
    if rank == 0:
        save(checkpoint, network=network.state_dict(), optimizer=optimizer.state_dict(), average=average.values,
             step=step, spent=spent, resumed=resumed)
        (folder / "done").write_text(f"{step} steps, {spent:.0f} s\n")
    if processes > 1:
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def main() -> None:
    """Parse arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/spider_t2space"))
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=90, help="training time; the learning rate ends with it")
    parser.add_argument("--iterations", type=int, help="number of steps instead of a time (reproducible)")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seed", type=int, default=20261123)
    parser.add_argument("--workers", type=int, default=0, help="processes a training process that prepare samples")
    parser.add_argument("--processes", type=int, default=1, help="processes that share each batch (CPU)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--start", type=Path, help="weights to begin from (safetensors)")
    parser.add_argument("--runs", type=Path, default=RUNS)
    options = parser.parse_args()
    if options.processes == 1:
        train(0, options)
        return
    (options.runs / f"fold{options.fold}" / "rendezvous").unlink(missing_ok=True)
    torch.multiprocessing.spawn(train, (options,), options.processes)


if __name__ == "__main__":
    main()
