"""A link with everything that a file of it holds, for the tests of files."""

from __future__ import annotations

import numpy as np

from fastadam.link import Chain, ChainList, Link


def model(fill=0):
    chain = Chain(l1=Link(W=(2, 3), b=2), l2=ChainList(Link(W=((3,), "f8")), Link(lazy=None)))
    chain.l1.add_persistent("mean", np.zeros(2))
    chain.add_persistent("count", 0)
    chain.add_persistent("text", "")
    for number, param in enumerate(chain.params(include_uninit=False)):
        param.array[...] = np.arange(param.size).reshape(param.shape) + fill + 10 * number
    return chain


def trained():
    chain = model(100)
    chain.l1.mean[...] = [5, 6]
    chain.count = 7
    chain.text = "grüße"
    return chain


def state(link):
    """Everything a file may change, as bytes."""
    params = {
        path: None if p.array is None else p.array.tobytes() for path, p in link.namedparams()
    }
    return params, link.l1.mean.tobytes(), link.count, link.text
