"""What a staged job remembers of its publications, beside its results.

    <output>/jobs/staged-…/published/000001/    part-000000.parquet …, planned.json, kept-000000.json …, published.json,
                                                reverting.json, reverted-000000.json …, over.json
    <output>/jobs/staged-…/replaced/000001/     what lay in the places of the results, under the same paths

Publishing again what was made since is a further publication, with the next number. A publication is planned before
anything is changed: a row of its plan holds the manifest row that a result gets, and the rows that counted before,
`former` of its input and `owner` of its place. From then on the manifest itself tells how far it has come: a row of the
plan is `ours` if the manifest says what was published, `later` if it says what neither was there before nor was
published, and else `before`. Who holds a lease changes any of this; nobody else does.
"""

import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from infra import store
from infra.errors import UsageError
from pipelines.catalog import manifest, parts
from pipelines.catalog.database import Database
from pipelines.catalog.listing import canonical

CHUNK = 1000  # results that are dealt with together: two small objects are written for so many
OURS, LATER, BEFORE = "ours", "later", "before"
PLANNED, PUBLISHED, REVERTING, OVER = "planned.json", "published.json", "reverting.json", "over.json"
IDENTITY = ("uri", "status", "job_id", "work_id", "result_uri", "result_sha256")  # what makes two rows say the same

ROW = pa.struct(list(manifest.SCHEMA))
SCHEMA = pa.schema(
    [("chunk", pa.int32()), ("number", pa.int32()), *((name, ROW) for name in ("ours", "former", "owner"))]
)
Row = dict[str, Any]


@dataclass(frozen=True)
class StagedJob:
    """A folder that `apply --stage` made, and the output folder it lies in."""

    folder: str
    place: str
    id: str

    @property
    def staged_manifest(self) -> str:
        return store.join(self.folder, "manifest")

    @property
    def manifest(self) -> str:
        return store.join(self.place, "manifest")

    def path_of(self, target: str) -> str:
        """The path of a result below `images/`, of its place in the output folder."""
        return target.removeprefix(store.join(self.place, "images", ""))


def find(job: str, output: str | None = None) -> StagedJob:
    """The staged job of an address, or of an id and the output folder. Raises UsageError, StoreError."""
    if output and "/" in job:
        raise UsageError(f"{job}: this is an address already; leave --output away, or give the id alone.")
    address = canonical(store.join(output, "jobs", job) if output else job)
    found = re.fullmatch(r"(.+)/jobs/(staged-[0-9a-f]{12})", address)
    if found is None:
        raise UsageError(
            f"{job}: this is no staged job. Give the address that `apply --stage` tells, which ends in"
            " /jobs/staged-<12 characters>, or its last part together with --output."
        )
    staged = StagedJob(found[0], found[1], found[2])
    if not manifest.parts(staged.staged_manifest):
        raise UsageError(f"{staged.folder}: there is no such job, or nothing in it is done yet.")
    return staged


@dataclass(frozen=True)
class Publication:
    """One numbered publication; `names` are the files in its folder."""

    job: StagedJob
    number: int
    names: set[str] = field(default_factory=set)

    @property
    def folder(self) -> str:
        return store.join(self.job.folder, "published", f"{self.number:06}")

    @property
    def chunks(self) -> list[str]:
        """The parts of the plan."""
        return sorted(name for name in self.names if name.startswith("part-"))

    @property
    def is_reverted(self) -> bool:
        """Whether every part of it was reverted, but for what later jobs had changed."""
        return REVERTING in self.names and all(reverted_name(at) in self.names for at in range(len(self.chunks)))

    def kept_copy(self, target: str) -> str:
        """Where the object is kept that a result replaced."""
        return store.join(self.job.folder, "replaced", f"{self.number:06}", self.job.path_of(target))

    def mark(self, name: str, content: Any = None) -> None:
        """Write one of its small files."""
        store.write(store.join(self.folder, name), json.dumps(content).encode())
        self.names.add(name)

    def kept(self, chunk: int) -> dict[int, bool]:
        """Rows of a chunk whose places may have been written to, and whether something lay there before."""
        name = kept_name(chunk)
        told = json.loads(store.read(store.join(self.folder, name))) if name in self.names else {}
        return {int(number): there for number, there in told.items()}

    def entries(self, chunk: int) -> list[Row]:
        """The rows of one part of the plan; `former` and `owner` are None where there was none."""
        rows = pq.read_table(io.BytesIO(store.read(store.join(self.folder, self.chunks[chunk])))).to_pylist()
        return [row | {name: row[name] if row[name]["uri"] else None for name in ("former", "owner")} for row in rows]


def kept_name(chunk: int) -> str:
    return f"kept-{chunk:06}.json"


def reverted_name(chunk: int) -> str:
    return f"reverted-{chunk:06}.json"


def publications(job: StagedJob) -> list[Publication]:
    """All that the job remembers, the oldest first."""
    found: dict[int, Publication] = {}
    for stored in store.list_objects(store.join(job.folder, "published")):
        folder, _, name = stored.uri.rpartition("/")
        number = int(folder.rpartition("/")[2])
        found.setdefault(number, Publication(job, number)).names.add(name)
    return [found[number] for number in sorted(found)]


@dataclass(frozen=True)
class Plan:
    """What is to be published next (None: nothing), and how many results are in place, or later jobs' by now."""

    publication: Publication | None
    in_place: int
    left: int
    failed: int


def plan(job: StagedJob, standing: Sequence[Publication], number: int) -> Plan:
    """Plan a publication of what is done and is neither in place nor part of a standing publication."""
    with manifest.opened(job.staged_manifest, manifest.parts(job.staged_manifest)) as connection:
        _bring(connection, job)
        connection.register("plans", _dataset(standing) if standing else SCHEMA.empty_table())
        identity = ", ".join(f"ours.{name} AS {name}" for name in IDENTITY)
        connection.execute(f"CREATE TEMP TABLE earlier AS SELECT DISTINCT {identity} FROM plans")
        joined = f"""
            FROM results LEFT JOIN there AS former ON former.uri = results.uri
            LEFT JOIN there AS owner ON owner.result_uri = results.result_uri
            LEFT JOIN earlier ON earlier.uri = results.uri AND {_same("earlier", "results")}"""
        in_place = _same("results", "former")
        left = f"NOT ({in_place}) AND earlier.uri IS NOT NULL"
        counted = _numbers(connection, f"SELECT count(*) FILTER ({in_place}), count(*) FILTER ({left}) {joined}")
        failed = _numbers(connection, f"SELECT count(*) FROM newest WHERE status = '{manifest.FAILED}'")
        rows = connection.sql(
            f"SELECT results AS ours, former, owner {joined} WHERE NOT ({in_place}) AND earlier.uri IS NULL"
        )
        publication = Publication(job, number)
        _write(publication, rows.to_arrow_reader(CHUNK))
        return Plan(publication if publication.names else None, *counted, *failed)


def _bring(connection: Database, job: StagedJob) -> None:
    """`results`, the staged rows as they will be once published, and `there`, what counts in the output folder."""
    staged, place = f"/jobs/{job.id}/images/", store.join(job.place, "images", "")
    connection.execute(f"""
        CREATE TEMP VIEW results AS SELECT * REPLACE (
            {_quoted(place)} || substr(result_uri, strpos(result_uri, '{staged}') + {len(staged)}) AS result_uri
        ) FROM newest WHERE status = '{manifest.DONE}' AND contains(result_uri, '{staged}')""")
    with manifest.opened(job.manifest, manifest.parts(job.manifest)) as other:
        connection.register("arriving", other.sql("SELECT * FROM newest").to_arrow_reader(CHUNK))
        connection.execute("CREATE TEMP TABLE there AS SELECT * FROM arriving")
        connection.unregister("arriving")


def _write(publication: Publication, batches: Iterable[pa.RecordBatch]) -> None:
    for chunk, table in enumerate(_sliced(batches)):
        columns = {"chunk": pa.array([chunk] * len(table)), "number": pa.array(range(len(table)))}
        columns |= {name: table[name] for name in table.column_names}
        buffer = io.BytesIO()
        pq.write_table(pa.table(columns).cast(SCHEMA), buffer, compression="zstd")
        name = f"part-{chunk:06}.parquet"
        store.write(store.join(publication.folder, name), buffer.getvalue())
        publication.names.add(name)
    if publication.names:
        publication.mark(PLANNED)


def _sliced(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Batches as tables of `CHUNK` rows, the last one of fewer."""
    gathered: pa.Table | None = None
    for batch in batches:
        arrived = pa.Table.from_batches([batch])
        gathered = arrived if gathered is None else pa.concat_tables([gathered, arrived])
        while len(gathered) >= CHUNK:
            yield gathered.slice(0, CHUNK)
            gathered = gathered.slice(CHUNK)
    if gathered is not None and len(gathered):
        yield gathered


@dataclass(frozen=True)
class State:
    """What the manifest says of one row of a plan.

    widowed  whether the input that owned the place before has no row at all now
    """

    number: int
    state: str
    widowed: bool


@dataclass(frozen=True)
class Compared:
    """A publication beside the manifest; `latest` is when its latest row was finished."""

    connection: Database
    latest: datetime | None

    def count(self, state: str) -> int:
        return _numbers(self.connection, f"SELECT count(*) FROM states WHERE state = '{state}'")[0]

    def chunks(self) -> Iterator[tuple[int, list[State]]]:
        """The states of each chunk, in order."""
        ordered = self.connection.sql("SELECT chunk, number, state, widowed FROM states ORDER BY chunk, number")
        rows = (row for batch in ordered.to_arrow_reader(10_000) for row in batch.to_pylist())
        for chunk, found in groupby(rows, lambda row: row.pop("chunk")):
            yield chunk, [State(**row) for row in found]


@contextmanager
def compared(publication: Publication) -> Iterator[Compared]:
    """The states of all rows of the plan, as they are now."""
    folder = publication.job.manifest
    with manifest.opened(folder, manifest.parts(folder)) as connection:
        connection.register("plans", _dataset([publication]))
        connection.execute("CREATE TEMP TABLE there AS SELECT * FROM newest")
        connection.execute(f"""
            CREATE TEMP TABLE states AS SELECT chunk, number, widow.uri IS NULL AS widowed, CASE
                WHEN {_same("plans.ours", "now")} THEN '{OURS}'
                WHEN (now.uri IS NOT NULL AND NOT ({_same("plans.former", "now")}))
                  OR (holder.uri IS NOT NULL AND NOT ({_same("plans.owner", "holder")})) THEN '{LATER}'
                ELSE '{BEFORE}' END AS state
            FROM plans LEFT JOIN there AS now ON now.uri = plans.ours.uri
            LEFT JOIN there AS holder ON holder.result_uri = plans.ours.result_uri
            LEFT JOIN there AS widow ON widow.uri = plans.owner.uri""")
        connection.execute("DROP TABLE there")
        yield Compared(connection, manifest.latest_of(connection))


def unfinished(job: StagedJob) -> int | None:
    """How many images its runs have listed that have no row yet; None if every one has, and some listing is whole."""
    folders: dict[str, bool] = {}  # and whether the listing is whole
    for stored in store.list_objects(store.join(job.folder, "jobs")):
        folder, _, name = stored.uri.rpartition("/")
        if folder.endswith("/catalog"):
            folders[folder] = folders.get(folder, False) or name == parts.PASSED
    if not folders:
        return None
    with manifest.opened(job.staged_manifest, manifest.parts(job.staged_manifest)) as connection:
        names = [f"listed{number}" for number in range(len(folders))]
        for name, folder in zip(names, folders, strict=True):
            connection.register(name, parts.dataset(folder))
        listed = " UNION ALL ".join(f"SELECT uri FROM {name}" for name in names)
        query = f"SELECT count(DISTINCT uri) FROM ({listed}) ANTI JOIN recorded USING (uri)"
        (missing,) = _numbers(connection, query)
    return None if not missing and any(folders.values()) else missing


def _numbers(connection: Database, query: str) -> list[int]:
    """The one row that a query gives."""
    (row,) = connection.sql(query).to_arrow_table().to_pylist()
    return list(row.values())


def _same(one: str, other: str) -> str:
    return " AND ".join(f"{one}.{name} IS NOT DISTINCT FROM {other}.{name}" for name in IDENTITY)


def _quoted(text: str) -> str:
    escaped = text.replace("'", "''")
    return f"'{escaped}'"


def _dataset(publications: Sequence[Publication]) -> ds.Dataset:
    filesystem, folder = store.arrow(publications[0].job.folder)
    paths = [f"{folder}/published/{each.number:06}/{name}" for each in publications for name in each.chunks]
    return ds.dataset(paths, schema=SCHEMA, format="parquet", filesystem=filesystem)
