"""In the place of the process that Ray runs in: one that does what a script says.

A script is a list of steps: ``["nodes", name...]`` reports nodes of one CPU, ``["deliver"]``
answers the oldest order, ``["raise", text]`` sends an error, ``["exit"]`` ends the process,
``["hang"]`` does nothing.
"""

from __future__ import annotations

import json
import os
import pickle
import time
from multiprocessing.connection import Connection

from vocprep.building.ray.messages import Delivery, Node
from vocprep.errors import DataError

VARIABLE = "SCRIPTED_RAY"


def serve(descriptor: int) -> None:
    """Follow the script of the environment, then wait for the end."""
    build = Connection(descriptor)
    build.recv()
    for step, *words in json.loads(os.environ[VARIABLE]):
        if step == "nodes":
            build.send(tuple(_node(word) for word in words))
        elif step == "deliver":
            shard = build.recv().shard
            build.send(Delivery(node="here", built=pickle.dumps(shard)))
        elif step == "raise":
            build.send(DataError(words[0]))
        elif step == "hang":
            time.sleep(600)
        else:
            return
    while build.recv() is not None:
        pass


def _node(name: str) -> Node:
    return Node(id=name, address=name, name=name, cpus=1.0, gpus=0.0)
