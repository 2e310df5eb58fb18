"""Runs in a container with a share: JAX computes, then takes all it can get."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp


def main() -> None:
    x = jnp.ones((1024, 1024))
    product = float((x @ x)[0, 0])
    kept = []
    error = ""
    try:
        while True:
            kept.append(jnp.ones((32 << 20,), dtype=jnp.uint8).block_until_ready())
    except jax.errors.JaxRuntimeError as failure:
        error = str(failure).partition(":")[0]
    values = {"platform": jax.devices()[0].platform, "product": product, "got_mib": 32 * len(kept), "error": error}
    print("RESULT " + json.dumps(values))


main()
