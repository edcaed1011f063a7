"""Agents as a file on the pages: who may, the preview, the import, the admin's export."""

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from controlplane.models import Agent

CSV = b"slug,tier,weight\ndebugger,sonnet,2.5\nmy-own,opus,1\n"


def upload(client, text: bytes, name: str = "agents.csv"):
    return client.post("/agents/import", {"file": SimpleUploadedFile(name, text)})


def test_a_file_is_previewed_then_taken_in(sign_in, client, service):
    sign_in("admin")
    assert "Only <code>slug</code> is needed" in client.get("/agents/import").content.decode()
    shown = upload(client, CSV).content.decode()
    assert "1 add, 1 change, 0 same, 0 wrong" in shown and "<del>1</del> <ins>2.5</ins>" in shown
    assert not Agent.objects.filter(slug="my-own").exists()
    client.post("/agents/import", {"confirmed": "1", "form": "csv", "text": CSV.decode().replace("\n", "\r\n")})
    assert Agent.objects.get(slug="debugger").weight == 2.5 and Agent.objects.get(slug="my-own").tier_id == "opus"
    assert service.refreshed == 1
    again = upload(client, CSV)
    assert again.status_code == 422 and "Nothing differs" in again.content.decode()


def test_bad_rows_are_named_and_nothing_is_written(sign_in, client):
    sign_in("admin")
    bad = CSV + b"other,queen,1\n"
    shown = upload(client, bad)
    assert shown.status_code == 422 and "is no tier" in shown.content.decode()
    sent = client.post("/agents/import", {"confirmed": "1", "form": "csv", "text": bad.decode()})
    assert sent.status_code == 422 and not Agent.objects.filter(slug="my-own").exists()
    for text, said in ((b"\xff", "not UTF-8"), (b"[", "no JSON")):
        refused = upload(client, text, "agents.json")
        assert refused.status_code == 422 and said in refused.content.decode()
    assert "choose a CSV" in client.post("/agents/import").content.decode()


@pytest.mark.parametrize(("role", "status"), [("viewer", 403), ("operator", 403), ("admin", 200)])
def test_importing_is_for_admins(sign_in, role, status):
    assert sign_in(role).get("/agents/import").status_code == status


def test_everybody_who_may_look_may_export_and_no_key_is_in_it(sign_in, client):
    sign_in("viewer")
    csv, js = client.get("/agents/export.csv"), client.get("/agents/export.json")
    assert csv.content.count(b"\n") >= 132 and len(js.json()) == 131
    assert 'filename="agents-' in csv.headers["Content-Disposition"] and b"digest" not in csv.content
    assert client.get("/agents/export.exe").status_code == 404
    assert "/agents/import" not in client.get("/agents").content.decode()
