"""A hostile server"""
from __future__ import annotations
import time, os
from tests.git.transport_fixtures import LfsServer, lfs_server, put
from git_theta_ext import transport, lfs
from git_theta_ext.manifest import UpdateRef
from git_theta_ext.repository import Repository
from tests.hostile.attacks.sites import *
def test_names(new_repo, monkeypatch):
    repo = new_repo()
    old = lfs._Watch.report
    def report(self):
        try: print(self.path.read_bytes())
        except OSError: pass
        return old(self)
    monkeypatch.setattr(lfs._Watch, "report", report)
    with lfs_server() as server:
        repo.git("remote","add","origin",server.url+"/r"); repo.git("config","lfs.url", server.url)
        repository = Repository.discover(repo.path)
        refs = put(repository, b"x"*100000, b"y"*10)
        print(transport.push(repository, "origin", server.url, refs))
        for r in refs: repository.store.remove(r.oid)
        transport.fetch(repository, refs)
    assert 0
