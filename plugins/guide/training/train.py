"""Train the guide and write its GGUF file.

Run from ``plugins/guide``: ``python -m training.train`` (see the README for what it needs).
``--validate`` sets one of six phrasings of each topic aside, reports how many of those come out
right, and writes nothing: use it to tune. The held-out questions of the tests are never read here.
"""

import argparse
import logging
import math
import random
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as fn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from . import dialogs
from .export import write_gguf
from .network import Guide, Shape
from .tokenizer import train_tokenizer

OUTPUT = Path(__file__).parents[1] / "src" / "aiplayground_guide" / "guide.gguf"
PEAK_RATE = 3e-3
WARM_UP = 40
COOLING = 0.6
"""Share of the steps after which the learning rate falls to nothing."""
SLOWNESS = 0.6
"""How far down its slope the cosine would be at the last step."""
MAX_PARAMETERS = 1_000_000
AVERAGED = 0.998
"""Decay of the moving average of the weights, which is what ships: it understands more than the
weights of the last step do."""

log = logging.getLogger("guide.training")


def learning_rate(step: int, steps: int) -> float:
    """Linear warm-up, a slow cosine, and from ``COOLING`` on a straight line down to nothing."""
    if step < WARM_UP:
        return PEAK_RATE * (step + 1) / WARM_UP
    begin = COOLING * steps
    kept = PEAK_RATE * 0.5 * (1 + math.cos(math.pi * min(step, begin) / steps * SLOWNESS))
    return kept * min(1.0, (steps - step) / (steps - begin))


def pad(rows: list[list[int]], filler: int) -> Tensor:
    """Right-pad rows to one length; causal attention makes a padding mask superfluous."""
    width = max(map(len, rows))
    return torch.tensor([row + [filler] * (width - len(row)) for row in rows])


def optimizer_for(network: nn.Module) -> torch.optim.AdamW:
    """AdamW; matrices decay, norms do not."""
    matrices = [weight for weight in network.parameters() if weight.ndim == 2]
    norms = [weight for weight in network.parameters() if weight.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.98), fused=True)


def fit(network: Guide, sampler: dialogs.DialogSampler, steps: int, tokens: int) -> None:
    """Train in place, ``tokens`` tokens a step."""
    optimizer = optimizer_for(network)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(AVERAGED))
    began = time.monotonic()
    network.train()
    for step, (ids, labels) in zip(range(steps), sampler.batches(tokens), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        wanted = pad(labels, dialogs.IGNORED)[:, 1:]
        where = wanted != dialogs.IGNORED
        loss = fn.cross_entropy(network(pad(ids, 0)[:, :-1], where), wanted[where])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(network)
        if step % 100 == 99:
            log.info("step %d: loss %.4f, %.0f s", step + 1, loss.item(), time.monotonic() - began)
    network.load_state_dict(average.module.state_dict())


def is_right(network: Guide, encoder: dialogs.DialogEncoder, question: str, answer: str) -> bool:
    """Whether the greedy answer to ``question`` is ``answer``, to the letter."""
    network.eval()
    ids, labels = encoder.turn(encoder.encode(question), answer)
    with torch.no_grad():
        best = network(torch.tensor([ids[:-1]]))[0].argmax(-1)
    wanted = torch.tensor(labels[1:])
    # Each wanted token is the likeliest after the wanted ones before it: that is greedy decoding.
    return bool(((best == wanted) | (wanted == dialogs.IGNORED)).all())


def report(
    name: str, network: Guide, encoder: dialogs.DialogEncoder, pairs: list[tuple[str, str]]
) -> None:
    """Log the share of questions that are answered to the letter, and which are not."""
    wrong = [
        question for question, answer in pairs if not is_right(network, encoder, question, answer)
    ]
    log.info("%s: %d of %d right", name, len(pairs) - len(wrong), len(pairs))
    for question in wrong:
        log.info("  not right: %s", question)


def round_to_f16(network: nn.Module) -> None:
    """Round matrices as the file will, so that the report speaks of what ships."""
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim == 2:
                weight.copy_(weight.half().float())


def main() -> None:
    """Parse arguments, train, report, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--tokens", type=int, default=2048, help="tokens per step")
    parser.add_argument("--dropout", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--validate", action="store_true", help="measure on phrasings set aside")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)

    questions = dialogs.load()
    train, aside = dialogs.split(questions, 6) if args.validate else (questions, None)
    tokenizer = train_tokenizer(train, Shape.vocab, rng)
    encoder = dialogs.DialogEncoder(tokenizer)
    network = Guide(Shape(vocab=tokenizer.get_vocab_size()), args.dropout)
    log.info("%d topics, %d parameters", len(train.topics), network.parameter_count())
    if network.parameter_count() >= MAX_PARAMETERS:
        raise SystemExit(f"the guide must stay below {MAX_PARAMETERS} parameters")
    fit(network, dialogs.DialogSampler(train, encoder, rng), args.steps, args.tokens)
    round_to_f16(network)
    report("training phrasings", network, encoder, list(train.plain()))
    if aside is not None:
        report("phrasings set aside", network, encoder, list(aside.plain()))
        return
    write_gguf(network, tokenizer, args.output)
    log.info("wrote %s, %d bytes", args.output, args.output.stat().st_size)


if __name__ == "__main__":
    main()
