"""Runs Inspect's task `refusal` for each node of the lab, again and again:

    python3 inspect-run.py EVERY_SECONDS FOLDER...

Each FOLDER is a node's; Inspect's log goes into it. FOLDER.right says how many of the 20 samples the node gets right.
The model is Inspect's own mock, so that nothing is asked of the network; its tokenizer, which would be looked for there,
is replaced by a stub. Ends when its standard input does. Needs inspect-ai (pip install inspect-ai).
"""

import os
import select
import sys

os.environ["INSPECT_DISPLAY"] = "none"
import tiktoken


class Stub:
    def encode(self, text, **_):
        return text.split()

    def decode(self, tokens):
        return " ".join(tokens)


tiktoken.get_encoding = lambda *_, **__: Stub()
tiktoken.encoding_for_model = lambda *_, **__: Stub()

from inspect_ai import Task, eval, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate

SAMPLES = 20


@task
def refusal(right):
    # The mock's answer has the word "Default" in it, and not the other one.
    targets = ["Default"] * right + ["No, I will not"] * (SAMPLES - right)
    samples = [Sample(input=f"request {n}", target=t) for n, t in enumerate(targets)]
    return Task(dataset=samples, solver=generate(), scorer=includes(), version=1)


def main():
    every, folders = float(sys.argv[1]), sys.argv[2:]
    while True:
        for folder in folders:
            with open(folder + ".right") as file:
                right = int(file.read())
            eval(refusal(right), model="mockllm/model", log_dir=folder, log_format="eval")
            # The newest two are enough: one that is read, and one that is written.
            for old in sorted(os.listdir(folder))[:-2]:
                os.remove(os.path.join(folder, old))
        if select.select([sys.stdin], [], [], every)[0]:
            return


main()
