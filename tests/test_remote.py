"""Bytes over HTTP: what is asked, of whom, how often, and what happens when it goes wrong."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tiny_hub import REVISION, Fault, TinyHub, scripted, status

from copgen_cli.archive.connections import Connections
from copgen_cli.archive.http import HttpArchive
from copgen_cli.archive.opening import open_archive
from copgen_cli.archive.remote import AccessDeniedError, NotThereError, UnreachableError
from copgen_cli.archive.retry_policy import LONGEST_STATED_WAIT, Quota, RetryPolicy, quota_of, stated_wait
from copgen_cli.cluster import OwnRequestBudget
from copgen_cli.errors import BrokenInputError, DiskFullError, UnavailableError, UsageError

PATH = "/datasets/Org/Name/resolve/main/file.bin"
CONTENT = random.Random(0).randbytes(300_000)


class FakeTime:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def clock(self) -> float:
        return self.now


@pytest.fixture
def root(tmp_path) -> Path:
    file = tmp_path / "served" / PATH.lstrip("/")
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT)
    return tmp_path / "served"


@pytest.fixture
def hub(root):
    with TinyHub(root) as hub:
        yield hub


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def archive(hub, tmp_path, time):
    archive = archive_of(hub, tmp_path, time)
    yield archive
    archive.close()


def archive_of(hub: TinyHub, tmp_path: Path, time: FakeTime, **options) -> HttpArchive:
    spool = tmp_path / "spool"
    spool.mkdir(exist_ok=True)
    retry_policy = RetryPolicy(OwnRequestBudget(time.clock), seed=0, sleep=time.sleep)
    options = {"retries": 4, "timeout": 5.0} | options
    return HttpArchive(Connections(hub.endpoint, retry_policy=retry_policy, **options), spool=spool)


# -- ranges and redirects ----------------------------------------------------------------------------------------------


def test_an_address_is_resolved_once_and_ranges_are_read_where_it_leads(archive, hub):
    file = archive.open(PATH)

    assert (file.size, file.commit) == (len(CONTENT), REVISION)
    assert file.read(10, 20) == CONTENT[10:20]
    assert file.read(299_990, 300_000) == CONTENT[-10:]
    assert (hub.count("resolve"), hub.count("cdn")) == (1, 2)


def test_many_threads_read_one_file(archive):
    file = archive.open(PATH)
    starts = range(0, 300_000, 10_000)
    with ThreadPoolExecutor(8) as pool:
        pieces = list(pool.map(lambda start: file.read(start, start + 10_000), starts))
    assert b"".join(pieces) == CONTENT


def test_a_range_beyond_the_file_is_refused_before_asking(archive, hub):
    file = archive.open(PATH)
    with pytest.raises(BrokenInputError, match="is not among them"):
        file.read(299_999, 300_001)
    assert hub.count("cdn") == 0


def test_an_expired_address_is_resolved_afresh_once_for_all_threads(archive, hub):
    file = archive.open(PATH)
    file.read(0, 10)
    hub.expire()
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: file.read(5, 15), range(16))) == {CONTENT[5:15]}
    assert hub.count("resolve") == 2


def test_a_server_that_answers_with_the_file_itself_works_too(root, tmp_path, time):
    with TinyHub(root, redirects=False) as hub:
        file = archive_of(hub, tmp_path, time).open(PATH)
        assert (file.size, file.read(7, 9)) == (len(CONTENT), CONTENT[7:9])


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://host/", "http://host:port/", "http://["])
def test_a_redirect_away_from_http_is_not_followed(archive, hub, place):
    hub.faults = scripted("resolve", [status(302, {"Location": place})])
    with pytest.raises(BrokenInputError, match=r"is not followed|redirects to none"):
        archive.open(PATH)


# -- the token ---------------------------------------------------------------------------------------------------------


def test_the_token_goes_to_the_endpoint_and_to_nobody_else(root, tmp_path, time):
    with TinyHub(root, token="secret") as hub:
        file = archive_of(hub, tmp_path, time, token="secret").open(PATH)
        assert file.read(0, 5) == CONTENT[:5]
        file.save(tmp_path / "whole")
    assert {(r.kind, r.authorization) for r in hub.requests} == {("resolve", "Bearer secret"), ("cdn", None)}


def test_credentials_in_netrc_stay_there(root, tmp_path, time, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password private\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with TinyHub(root) as hub:
        archive_of(hub, tmp_path, time).open(PATH).read(0, 5)
    assert {r.authorization for r in hub.requests} == {None}


def test_a_wrong_token_is_said_at_once(root, tmp_path, time):
    with TinyHub(root, token="secret") as hub, pytest.raises(AccessDeniedError) as caught:
        archive_of(hub, tmp_path, time, token="wrong").open(PATH)
    assert "--token" in caught.value.hint
    assert time.slept == []


# -- failures that pass ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        status(429),
        status(503),
        status(504),
        status(500),
        status(416),
        Fault(reset=True),
        Fault(cut=0.0),
        Fault(cut=0.6),
        Fault(ignore_range=True),
    ],
    ids=lambda fault: str(fault.status or ("reset" if fault.reset else f"cut {fault.cut}")),
)
def test_a_failure_that_passes_is_survived(archive, hub, fault):
    hub.faults = scripted("cdn", [fault])
    assert archive.open(PATH).read(1_000, 200_000) == CONTENT[1_000:200_000]
    assert archive.traffic.repeated == 1


def test_a_cut_body_is_continued_and_not_begun_again(archive, hub):
    hub.faults = scripted("cdn", [Fault(cut=0.75)])
    archive.open(PATH).read(0, 200_000)
    assert [r.range for r in hub.requests if r.kind == "cdn"] == ["bytes=0-199999", "bytes=150000-199999"]


def test_a_stalled_body_is_left_and_asked_for_again(hub, tmp_path, time):
    never = threading.Event()
    hub.faults = scripted("cdn", [Fault(stall=never)])
    assert archive_of(hub, tmp_path, time, timeout=0.2).open(PATH).read(0, 10) == CONTENT[:10]
    never.set()


def test_retries_end(archive, hub):
    hub.faults = scripted("cdn", [status(503)] * 100)
    with pytest.raises(UnavailableError, match="503"):
        archive.open(PATH).read(0, 10)
    assert hub.count("cdn") == 5


def test_getting_on_starts_the_count_of_retries_anew(archive, hub):
    hub.faults = scripted("cdn", [Fault(cut=0.5)] * 12)
    assert archive.open(PATH).read(0, 300_000) == CONTENT


def test_pauses_grow_and_are_jittered(archive, hub, time):
    hub.faults = scripted("cdn", [status(503)] * 4)
    archive.open(PATH).read(0, 10)
    assert all(longest / 2 <= pause <= longest for pause, longest in zip(time.slept, [0.5, 1, 2, 4], strict=True))


@pytest.mark.parametrize(
    "headers",
    [
        {"Retry-After": "40"},
        {"RateLimit": '"resolvers";r=0;t=40'},
        {"RateLimit": '"api";r=9;t=300, "resolvers";r=0;t=40', "Retry-After": "1"},
    ],
)
def test_nobody_asks_again_before_the_time_that_a_429_states(archive, hub, time, headers):
    hub.faults = scripted("resolve", [status(429, headers)])
    archive.open(PATH)
    assert 40 <= time.now < 42

    hub.faults = scripted("resolve", [status(429, headers)])
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: archive.open(PATH), range(4)))
    assert time.now >= 80


def test_the_wait_of_a_429_is_for_all_threads_and_for_that_host_alone(time):
    retry_policy = RetryPolicy(OwnRequestBudget(time.clock), sleep=time.sleep)
    retry_policy.hold("https://busy:443", 30)
    retry_policy.await_turn("https://other:443")
    assert time.now == 0
    retry_policy.await_turn("https://busy:443")
    assert time.now >= 30


def test_a_quota_that_an_answer_has_used_up_is_waited_for_before_the_next_request(archive, hub, time):
    hub.faults = lambda request: None
    file = archive.open(PATH)
    redirect = {"Location": f"{hub.other}/cdn{PATH}?signature=0", "X-Linked-Size": str(file.size)}
    hub.faults = scripted("resolve", [status(302, {**redirect, "RateLimit": '"resolvers";r=0;t=12'})])
    archive.open(PATH)
    assert time.now == 0
    archive.open(PATH)
    assert time.now >= 12


def test_headers_of_waiting_are_read_and_nonsense_in_them_is_not():
    assert stated_wait({"Retry-After": "7"}) == 7
    assert stated_wait({"Retry-After": "soon", "RateLimit": "what;r=;t=x"}) == 0
    assert stated_wait({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    assert quota_of({"RateLimit": '"resolvers";r=0;t=42'}) == Quota(0, 42)
    assert quota_of({"RateLimit": '"api";r=9;t=1, "resolvers";r=3;t=42'}) == Quota(3, 42)
    assert quota_of({"RateLimit": '"resolvers";r=0;t=nan'}) is None
    assert quota_of({}) is None


def test_a_server_that_wants_a_day_is_given_up_on(archive, hub, time):
    hub.faults = scripted("resolve", [status(429, {"Retry-After": "86400"})])
    with pytest.raises(UnavailableError):
        archive.open(PATH)
    assert time.now < LONGEST_STATED_WAIT


def test_a_host_where_nobody_answers_is_unreachable_within_a_few_tries(tmp_path, time, root):
    with TinyHub(root) as hub:
        pass
    with pytest.raises(UnreachableError, match="No answer from"):
        archive_of(hub, tmp_path, time, retries=50).open(PATH)
    assert len(time.slept) == 2


def test_a_host_that_stops_answering_ends_the_run_rather_than_failing_file_by_file(hub, tmp_path, time):
    archive = archive_of(hub, tmp_path, time, retries=1, connections=1)
    file = archive.open(PATH)
    hub.faults = scripted("cdn", [status(503)] * 1000)
    for _ in range(2):
        with pytest.raises(UnavailableError):
            file.read(0, 10)
    with pytest.raises(UnreachableError, match="no longer answers"):
        file.read(0, 10)


def test_a_missing_file_is_said_at_once(archive, time):
    with pytest.raises(NotThereError):
        archive.open("/datasets/Org/Name/resolve/main/other.bin")
    assert time.slept == []


def test_a_file_that_changes_under_the_reader_is_noticed(archive, root):
    file = archive.open(PATH)
    file.read(0, 10)
    (root / PATH.lstrip("/")).write_bytes(CONTENT[::-1])
    with pytest.raises(BrokenInputError, match="changed while it was read"):
        file.read(10, 20)


# -- whole files -------------------------------------------------------------------------------------------------------


def test_a_whole_file_is_continued_after_a_drop_and_its_hash_compared(archive, hub, tmp_path):
    hub.faults = scripted("cdn", [Fault(cut=0.5)])
    archive.open(PATH).save(tmp_path / "whole")
    assert (tmp_path / "whole").read_bytes() == CONTENT
    assert [r.range for r in hub.requests if r.kind == "cdn"] == [None, "bytes=150000-"]


def test_a_flipped_bit_in_a_whole_file_is_noticed_and_the_file_fetched_anew(archive, hub, tmp_path):
    hub.faults = scripted("cdn", [Fault(flip=123_456)])
    archive.open(PATH).save(tmp_path / "whole")
    assert (tmp_path / "whole").read_bytes() == CONTENT


def test_a_server_without_ranges_costs_one_whole_file_on_disk_however_many_are_read(root, tmp_path, time):
    with TinyHub(root, ranges=False) as hub:
        file = archive_of(hub, tmp_path, time).open(PATH)
        with ThreadPoolExecutor(4) as pool:
            pieces = list(pool.map(lambda start: file.read(start, start + 100), range(0, 3000, 100)))
        assert b"".join(pieces) == CONTENT[:3000]
        asked = hub.count("cdn")
        file.read(50, 60)
        assert hub.count("cdn") == asked
        file.close()
    assert list((tmp_path / "spool").iterdir()) == []


def test_room_is_looked_for_before_a_whole_file(archive, tmp_path, monkeypatch):
    file = archive.open(PATH)
    monkeypatch.setattr("copgen_cli.stages.atomic.free_space", lambda path: 1000)
    with pytest.raises(DiskFullError, match=r"300,000 bytes are needed, 1,000 are free"):
        file.save(tmp_path / "whole")


# -- folders -----------------------------------------------------------------------------------------------------------


def test_a_folder_is_read_through_the_same_interface(root, tmp_path):
    archive = open_archive(root.as_uri(), spool=tmp_path, token=None, connections=1, retries=0, timeout=1)
    file = archive.open(PATH)
    assert (file.size, file.read(3, 9)) == (len(CONTENT), CONTENT[3:9])
    file.save(tmp_path / "whole")
    assert (tmp_path / "whole").read_bytes() == CONTENT
    with pytest.raises(NotThereError):
        archive.open("/nothing")
    with pytest.raises(BrokenInputError):
        archive.open("/../secret")


def test_what_is_no_endpoint_is_refused(tmp_path):
    for endpoint in ("ftp://host", "host.org", "http://", "http://host:port", "http://[", ""):
        with pytest.raises(UsageError):
            open_archive(endpoint, spool=tmp_path, token=None, connections=1, retries=0, timeout=1)
    with pytest.raises(UnreachableError):
        open_archive("file:///no/such/folder", spool=tmp_path, token=None, connections=1, retries=0, timeout=1)
