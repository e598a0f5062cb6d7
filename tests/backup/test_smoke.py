import json
from tests.backup.hosts import *
def test_it(host):
    (host.source/"a").write_text("hello"*1000)
    host.job()
    e=host.run()
    print(json.dumps(e.events,indent=1), e.stderr, e.code)
    print(host.stored())
    m=host.manifests()
    print((host.store/m[0].stored_name).read_text())
    assert e.code==0
