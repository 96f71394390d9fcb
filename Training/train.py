"""Train folds: ``python -m Training.train --folds 0 1 2 3 --minutes 9``. Resumes from its last checkpoint.

Folds trained together share each sample: it goes to the networks of all folds but the one whose test person it shows.
Preparing samples is the larger part of the work next to a GPU, and is done once, not once per fold.
"""

import argparse
import math
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import torch
from torch.nn import functional

from DiscRelaxometryLib.atomic import atomic_path, write_json
from DiscRelaxometryLib.discs import DISC, DISC_L5S1, NetworkConfig, build_network
from Training.augment import Dice, sample
from Training.dataset import add_data, load_person, split

RUNS = Path(__file__).with_name("runs")
PEAK_RATE = 3e-3
SAVE_SECONDS, LOG_STEPS = 60, 50


class Samples(torch.utils.data.IterableDataset):
    """An endless stream of augmented samples, one person of each group in turn, seeded by run and worker."""

    def __init__(self, groups: list[list], seed: int):
        self.groups, self.seed = groups, seed

    def __iter__(self):
        """Yield (stack float16, soft labels of the structures in 255ths)."""
        torch.set_num_threads(1)
        info = torch.utils.data.get_worker_info()
        dice = Dice(torch.Generator().manual_seed(self.seed * 1000 + (info.id if info else 0)))
        while True:
            for group in self.groups:
                image, target = sample(group[dice.integer(len(group))], dice)
                yield image.half(), (target[1:] * 255).round().byte()


def learning_rate(progress: float, peak: float = PEAK_RATE) -> float:
    """One cycle: linear warm-up over 4 % of the run, then a cosine to 1 % of the peak."""
    if progress < 0.04:
        return peak * (0.05 + 0.95 * progress / 0.04)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - 0.04) / 0.96))))


def loss_of(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return cross-entropy plus soft Dice (over the batch) of each structure and of all discs together."""
    log = functional.log_softmax(logits.float(), 1)
    probability = log.exp()
    entropy = -(target * log).sum(1).mean()
    pairs = [(probability[:, c], target[:, c]) for c in range(1, logits.shape[1])]
    pairs.append((probability[:, DISC] + probability[:, DISC_L5S1], target[:, DISC] + target[:, DISC_L5S1]))
    dice = [1 - (2 * (p * t).sum() + 50) / (p.sum() + t.sum() + 50) for p, t in pairs]
    return entropy + torch.stack(dice).mean()


def has_bfloat16() -> bool:
    """Return whether the processor has bfloat16 instructions; others emulate it, many times slower than float32."""
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


class Average:
    """Exponential moving average of weights and normalization statistics."""

    def __init__(self, network: torch.nn.Module):
        self.values = {k: v.detach().clone().float() for k, v in network.state_dict().items()}

    def update(self, network: torch.nn.Module, step: int) -> None:
        """Move towards the network's values; short memory at first."""
        decay = min(0.9985, (1 + step) / (20 + step))
        now = [v.detach().float() for v in network.state_dict().values()]
        torch._foreach_lerp_(list(self.values.values()), now, 1 - decay)


class Learner:
    """One fold's network with its optimizer, moving average and folder.

    The folder holds ``checkpoint.pt`` if there is something to resume; `start` are weights (safetensors) to begin
    from.
    """

    def __init__(self, fold: int, config: NetworkConfig, folder: Path, device: str, start: Path | None = None):
        self.fold, self.folder, self.device = fold, folder, device
        self.network = build_network(config).to(device, memory_format=torch.channels_last).train()
        if start and not self.checkpoint.exists():
            from safetensors.torch import load_file
            self.network.load_state_dict({k: v.float() if v.is_floating_point() else v
                                          for k, v in load_file(start).items()})
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=PEAK_RATE, weight_decay=1e-2,
                                           fused=device.startswith("cuda"))
        self.average, self.running = Average(self.network), None
        self.bfloat16 = device != "cpu" or has_bfloat16()

    @property
    def checkpoint(self) -> Path:
        """File to resume from."""
        return self.folder / "checkpoint.pt"

    def resume(self) -> dict:
        """Load the checkpoint and return its counters."""
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.values = state["average"]
        return {k: state[k] for k in ("step", "spent", "resumed")}

    def step(self, image: torch.Tensor, target: torch.Tensor, rate: float, step: int, processes: int = 1) -> None:
        """Take one optimizer step on stacks (n, slices, rows, columns) and soft labels (n, classes, rows, columns)."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.bfloat16):
            logits = self.network(image.contiguous(memory_format=torch.channels_last))
        loss = loss_of(logits, target)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if processes > 1:
            average_gradients(self.network, processes)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self.average.update(self.network, step)
        loss = loss.detach()
        self.running = loss if self.running is None else 0.98 * self.running + 0.02 * loss

    def save(self, **counters) -> None:
        """Write the checkpoint, and the moving average as ``average.safetensors``, atomically."""
        from safetensors.torch import save_file

        with atomic_path(self.checkpoint) as temporary:
            torch.save({"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict(),
                        "average": self.average.values, **counters}, temporary)
        with atomic_path(self.folder / "average.safetensors") as temporary:
            save_file({k: v.cpu().contiguous() for k, v in self.average.values.items()}, str(temporary))


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


def groups_of(options: argparse.Namespace) -> tuple[list[list[str]], dict[int, list[int]], dict[int, dict]]:
    """Return groups of people, the groups that each fold learns from, and each fold's people.

    ValueError if a batch cannot be dealt to groups and processes evenly.
    """
    splits = {fold: split(options.data, fold) for fold in options.folds}
    groups = sorted({tuple(g) for train, _ in splits.values() for g in train})
    members = {fold: [n for n, g in enumerate(groups) if list(g) in train] for fold, (train, _) in splits.items()}
    if options.batch % (len(groups) * options.processes):
        raise ValueError(f"--batch {options.batch} has to be a multiple of {len(groups)} groups of people times "
                         f"{options.processes} processes.")
    names = {fold: {"train": sorted(n for g in train for n in g), "test": test}
             for fold, (train, test) in splits.items()}
    return [list(g) for g in groups], members, names


def describe(options: argparse.Namespace, config: NetworkConfig, folder: Path, fold: int, people: dict) -> None:
    """Write a fold's settings and people to ``run.json``."""
    kept = ("seed", "batch", "peak", "minutes", "iterations", "processes", "workers", "folds", "device")
    gpu = torch.cuda.get_device_name() if options.device.startswith("cuda") else ""
    write_json(folder / "run.json", {"fold": fold, **{k: getattr(options, k) for k in kept}, **people, "gpu": gpu,
                                     "start": sha256(options.start.read_bytes()).hexdigest() if options.start else "",
                                     "config": config.to_dict(), "torch": str(torch.__version__)})


def stream(options: argparse.Namespace, groups: list[list[str]], seed: int):
    """Return an iterator of batches (stacks, soft labels of the structures)."""
    names = sorted(n for g in groups for n in g)
    with ThreadPoolExecutor() as pool:
        persons = dict(zip(names, pool.map(lambda n: load_person(options.data, n), names)))
    samples = Samples([[persons[n] for n in g] for g in groups], seed)
    loader = torch.utils.data.DataLoader(samples, options.batch // options.processes, num_workers=options.workers,
                                         prefetch_factor=4 if options.workers else None,
                                         pin_memory=options.device.startswith("cuda"))
    return iter(loader)


def train(rank: int, options: argparse.Namespace) -> None:
    """Train folds until `iterations`, or until `minutes` of training time have passed.

    The learning rate follows the share of the budget spent, so that a run on a busy machine still ends its cycle.
    With several processes each works on its share of the batch, on one core, and gradients are averaged once a
    step: on a shared machine two processes of one thread are faster than one process of two threads, whose every
    operation waits for the slower core.
    """
    device, processes = options.device, options.processes
    options.runs.mkdir(parents=True, exist_ok=True)
    if processes > 1:
        torch.set_num_threads(1)
        torch.distributed.init_process_group("gloo", init_method=f"file://{(options.runs / 'rendezvous').resolve()}",
                                             rank=rank, world_size=processes)
    groups, members, people = groups_of(options)
    config, learners, counters = NetworkConfig(), [], {"step": 0, "spent": 0.0, "resumed": 0}
    saved = [options.runs / f"fold{fold}" / "checkpoint.pt" for fold in options.folds]
    again = all(path.exists() for path in saved)
    resumed = torch.load(saved[0], map_location="cpu", weights_only=True)["resumed"] + 1 if again else 0
    # Workers start before the GPU is touched, and draw other samples after each resumption.
    batches = stream(options, groups, options.seed + 7919 * resumed + 104729 * rank)
    for fold in options.folds:
        folder = options.runs / f"fold{fold}"
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(options.seed + fold)
        learners.append(Learner(fold, config, folder, device, options.start))
        if again:
            counters = learners[-1].resume() | {"resumed": resumed}
        if rank == 0:
            describe(options, config, folder, fold, people[fold])
    run(rank, options, learners, members, len(groups), batches, counters)
    if processes > 1:
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def run(rank: int, options, learners: list[Learner], members: dict, groups: int, batches, counters: dict) -> None:
    """Feed batches to the learners until the budget is spent; log and save from the first process."""
    device, processes = options.device, options.processes
    chosen = {fold: torch.isin(torch.arange(options.batch // processes) % groups, torch.tensor(own)).to(device)
              for fold, own in members.items()}
    torch.backends.cudnn.benchmark = True
    step, spent, resumed = counters["step"], counters["spent"], counters["resumed"]
    total, started, last_saved = options.minutes * 60, time.time() - spent, time.time()
    for image, target in batches:
        spent = time.time() - started
        progress = step / options.iterations if options.iterations else shared(spent / total, processes)
        if progress >= 1:
            break
        image = image.to(device, non_blocking=True).float()
        target = target.to(device, non_blocking=True).float() / 255
        target = torch.cat([(1 - target.sum(1, keepdim=True)).clamp_min(0), target], 1)
        for learner in learners:
            own = slice(None) if chosen[learner.fold].all() else chosen[learner.fold]
            learner.step(image[own], target[own], learning_rate(progress, options.peak), step, processes)
        step += 1
        if rank == 0 and step % LOG_STEPS == 0:
            log(options.runs, step, spent, progress, learners)
        if rank == 0 and time.time() - last_saved > SAVE_SECONDS:
            for learner in learners:
                learner.save(step=step, spent=spent, resumed=resumed)
            last_saved = time.time()
    if rank == 0:
        for learner in learners:
            learner.save(step=step, spent=spent, resumed=resumed)
            (learner.folder / "done").write_text(f"{step} steps, {spent:.0f} s\n")


def log(folder: Path, step: int, spent: float, progress: float, learners: list[Learner]) -> None:
    """Append step, seconds, progress and each fold's running loss to ``log.tsv``."""
    losses = "\t".join(f"{learner.running.item():.4f}" for learner in learners)
    with open(folder / "log.tsv", "a", encoding="utf-8") as file:
        file.write(f"{step}\t{spent:.0f}\t{progress:.4f}\t{losses}\n")


def main() -> None:
    """Parse arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_data(parser, "spider_t2space")
    parser.add_argument("--folds", type=int, nargs="+", default=[0])
    parser.add_argument("--minutes", type=float, default=90, help="training time; the learning rate ends with it")
    parser.add_argument("--iterations", type=int, help="number of steps instead of a time (reproducible)")
    parser.add_argument("--batch", type=int, default=12, help="samples per step, of all groups of people together")
    parser.add_argument("--seed", type=int, default=20261123)
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare samples, per training process")
    parser.add_argument("--processes", type=int, default=1, help="processes that share each batch (CPU)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--start", type=Path, help="weights to begin from (safetensors)")
    parser.add_argument("--peak", type=float, default=PEAK_RATE, help="highest learning rate; a tenth to fine-tune")
    parser.add_argument("--runs", type=Path, default=RUNS)
    options = parser.parse_args()
    if options.processes == 1:
        train(0, options)
        return
    (options.runs / "rendezvous").unlink(missing_ok=True)
    torch.multiprocessing.spawn(train, (options,), options.processes)


if __name__ == "__main__":
    main()
