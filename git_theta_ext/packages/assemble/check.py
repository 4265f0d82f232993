"""Whether a checkpoint is what its recipe makes: nothing is written to say so."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from git_theta_ext.core.parallel import ordered_map
from git_theta_ext.manifest.model import Block, Entry
from git_theta_ext.objects.blocks import sha256
from git_theta_ext.packages.assemble.assembly import Assembly
from git_theta_ext.packages.assemble.carry_out import structure
from git_theta_ext.packages.assemble.changes import differing
from git_theta_ext.packages.assemble.pieces import Made, Reader, blocks_of
from git_theta_ext.packages.assemble.plan import in_file_order


def differences(assembly: Assembly) -> list[str]:
    """What the checkpoint of the index, and of the work tree, has otherwise than the recipe.

    Of tensors that are taken as they are manifests say it; what is cast or put together is made
    once more, and hashed.

    Returns:
        A sentence for each difference; nothing where there is none.

    Raises:
        ThetaError: a part is not to be had.
    """
    path = assembly.path
    if any(entry.stage for entry in assembly.staged):
        return [f"{path} is in conflict"]
    if assembly.before is None:
        return [f"{path} is not added, or not stored by tensor"]
    found = differing(wanted(assembly), assembly.before.by_name())
    if not found:
        infos = {one.name: one.info for one in in_file_order(assembly.plan.values())}
        data = structure(assembly.recipe, assembly.parts, infos)
        if hashlib.sha256(data).hexdigest() != assembly.before.skeleton.sha256:
            found.append("its header has other metadata, or its tensors in another order")
    if assembly.is_modified:
        found.append(f"{path} has changes that are not added")
    return found


def wanted(assembly: Assembly) -> dict[str, Entry]:
    """The tensors that the recipe makes, by name: what they are, not how they are stored.

    Raises:
        ThetaError: what is to be made cannot be, or a part is not to be had.
    """
    found = {one.name: one.entry for one in assembly.plan.values() if one.is_plain}
    found.update((entry.tensor.name, entry) for entry in _made(assembly))
    return found


def _made(assembly: Assembly) -> Iterator[Entry]:
    """The tensors that are made, with the hashes of their blocks and nothing else."""
    wanted = [one for one in assembly.plan.values() if not one.is_plain]
    readers = {one.part: Reader(assembly.parts[one.part].blocks) for one in wanted}

    def make(made: Made) -> Block:
        values = readers[made.given.part].read(made)
        return Block(made.spec.nbytes, sha256(values))

    every = (made for one in wanted for made in blocks_of(one))
    done = ordered_map(make, every, lambda made: 2 * made.spec.nbytes)
    for one in wanted:
        yield Entry(one.info, tuple(next(done) for _ in blocks_of(one)))
