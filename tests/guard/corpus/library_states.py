"""Libraries with runtimes of their own: imported, used, closed."""
# ruff: noqa: PLC0415, FBT003, N806 - a state imports what it is about, where it is about it

from __future__ import annotations

import os
import sys
import time
from typing import Any

from guard.corpus.registry import ForkPoint, load, state


@state("harmless", needs="numpy")
def numpy_imported(fork: ForkPoint) -> None:
    """OpenBLAS starts its pool at the import, and stops it before a fork."""
    np = load("numpy")

    if fork():
        assert (np.ones((500, 500)) @ np.ones((500, 500)))[0, 0] == 500


@state("harmless", needs="numpy")
def numpy_used(fork: ForkPoint) -> None:
    """The pool in use before the fork, and in the child."""
    np = load("numpy")

    ones = np.ones((500, 500))
    assert (ones @ ones)[0, 0] == 500
    if fork():
        assert (ones @ ones)[0, 0] == 500


@state("wrong", needs="numpy", unseen=True)
def numpy_generator(fork: ForkPoint) -> None:
    """A generator of the program's own gives every child the same numbers."""
    np = load("numpy")

    receive, send = os.pipe()
    generator = np.random.default_rng(7)
    if fork():
        os.write(send, str(generator.random()).encode())
        os._exit(0)
    assert os.read(receive, 100).decode() != str(generator.random())


@state("harmless", needs="obstore")
def obstore_imported(fork: ForkPoint) -> None:
    """The import starts no Tokio; the first use in the child does."""
    obstore = load("obstore")
    MemoryStore = load("obstore.store").MemoryStore

    if fork():
        obstore.put(MemoryStore(), "name", b"value")


@state("harmless", needs="obstore")
def obstore_store_made(fork: ForkPoint) -> None:
    """Even a store that was made, and not used, has started nothing."""
    obstore = load("obstore")
    MemoryStore = load("obstore.store").MemoryStore

    store = MemoryStore()
    if fork():
        obstore.put(store, "name", b"value")


@state("hang", needs="obstore", quick=True)
def obstore_used(fork: ForkPoint) -> None:
    """One put before the fork: the child waits for a Tokio that it does not have."""
    import tempfile

    obstore = load("obstore")
    LocalStore = load("obstore.store").LocalStore

    store = LocalStore(tempfile.mkdtemp())
    obstore.put(store, "name", b"value")
    if fork():
        for _ in range(50):
            obstore.put(store, "name", b"value")
            obstore.get(store, "name").bytes()


@state("hang", needs="obstore")
def obstore_used_async(fork: ForkPoint) -> None:
    """The same with obstore's coroutines, in an asyncio.run() that is finished."""
    import asyncio
    import tempfile

    obstore = load("obstore")
    LocalStore = load("obstore.store").LocalStore

    store = LocalStore(tempfile.mkdtemp())

    async def main() -> None:
        for _ in range(20):
            await obstore.put_async(store, "name", b"value")

    asyncio.run(main())
    if fork():
        asyncio.run(main())


@state("harmless", needs="deltalake")
def deltalake_imported(fork: ForkPoint) -> None:
    """The import starts an allocator's thread, which a child makes anew."""
    deltalake = load("deltalake")

    if fork():
        assert not deltalake.DeltaTable.is_deltatable(f"/nowhere-{os.getpid()}")


@state("wrong", "hang", "crash", needs="deltalake")
def deltalake_used(fork: ForkPoint) -> None:
    """Deltalake knows the pid that made its Tokio, and panics in another one."""
    deltalake = load("deltalake")

    import tempfile

    arrow = load("arro3.core")

    table = arrow.Table.from_pydict({"a": arrow.Array([1, 2], arrow.DataType.int64())})
    deltalake.write_deltalake(tempfile.mkdtemp(), table)
    if fork():
        deltalake.write_deltalake(tempfile.mkdtemp(), table)


@state("harmless", needs="polars")
def polars_imported(fork: ForkPoint) -> None:
    """The import starts threads of the allocator and a cleaner; the pool comes with the use."""
    polars = load("polars")

    if fork():
        assert _use_polars(polars) == 10


@state("hang", needs="polars")
def polars_used(fork: ForkPoint) -> None:
    """The pool of Rayon was used before the fork."""
    polars = load("polars")

    assert _use_polars(polars) == 10
    if fork():
        _use_polars(polars)


def _use_polars(polars: Any) -> int:
    frame = polars.DataFrame({"a": list(range(10000)), "b": [i % 10 for i in range(10000)]})
    grouped = frame.lazy().group_by("b").agg(polars.col("a").sum()).sort("b").collect()
    return int(grouped.height)


@state("harmless", needs="grpc")
def grpc_imported(fork: ForkPoint) -> None:
    """An import is no runtime."""
    grpc = load("grpc")

    if fork():
        grpc.insecure_channel("127.0.0.1:1").close()


@state("hang", "wrong", needs="grpc")
def grpc_channel_open(fork: ForkPoint) -> None:
    """An open channel without gRPC's own fork support: the child's calls are never made."""
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    grpc = load("grpc")

    channel, call = _start_echo(grpc)
    assert call(b"parent", timeout=10) == b"parent"
    if fork():
        assert call(b"child", timeout=5) == b"child"
        os._exit(0)
    assert channel is not None


def _start_echo(grpc: Any) -> tuple[Any, Any]:
    from concurrent.futures import ThreadPoolExecutor

    class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, _: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(lambda request, _: request)

    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((Handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    return (channel, server), channel.unary_unary("/corpus/echo")


@state("harmless", needs="httpx")
def httpx_closed(fork: ForkPoint) -> None:
    """A client that was closed."""
    httpx = load("httpx")

    with httpx.Client():
        pass
    if fork():
        with httpx.Client():
            pass


@state("harmless", needs="aiohttp")
def aiohttp_finished(fork: ForkPoint) -> None:
    """A session inside a finished asyncio.run()."""
    import asyncio

    aiohttp = load("aiohttp")

    async def main() -> None:
        async with aiohttp.ClientSession():
            pass

    asyncio.run(main())
    if fork():
        asyncio.run(main())


@state("harmless", needs="opentelemetry")
def opentelemetry_worker(fork: ForkPoint) -> None:
    """OpenTelemetry's worker starts itself anew in a child."""
    trace = load("opentelemetry.sdk.trace")
    export = load("opentelemetry.sdk.trace.export")
    seen: list[str] = []

    class Exporter(export.SpanExporter):  # type: ignore[misc,name-defined]
        def export(self, spans: Any) -> Any:
            seen.extend(span.name for span in spans)
            return export.SpanExportResult.SUCCESS

    provider = trace.TracerProvider()
    provider.add_span_processor(export.BatchSpanProcessor(Exporter(), schedule_delay_millis=10))
    tracer = provider.get_tracer("corpus")
    tracer.start_span("parent").end()
    provider.force_flush()
    if fork():
        tracer.start_span("child").end()
        provider.force_flush()
        assert "child" in seen


@state("hang", "wrong", needs="prometheus_client")
def prometheus_server(fork: ForkPoint) -> None:
    """A metrics server without its thread: the kernel takes connections, nobody answers."""
    import socket

    prometheus_client = load("prometheus_client")

    server, _ = prometheus_client.start_http_server(0, "127.0.0.1")
    if not fork():
        server.shutdown()
        return
    while _threads_of(os.getppid()) > 1:
        os.sched_yield()
    with socket.create_connection(server.server_address) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        connection.recv(100)


def _threads_of(pid: int) -> int:
    return os.stat(f"/proc/{pid}/task").st_nlink - 2  # noqa: PTH116 - polled


@state("harmless", needs="prometheus_client")
def prometheus_metrics(fork: ForkPoint) -> None:
    """Metrics without a server."""
    prometheus_client = load("prometheus_client")

    counter = prometheus_client.Counter("corpus", "of states")
    counter.inc()
    if fork():
        counter.inc()


@state("harmless", needs="sentry_sdk")
def sentry_initialised(fork: ForkPoint) -> None:
    """sentry_sdk.init() starts its threads with the first event only."""
    sentry_sdk = load("sentry_sdk")

    sentry_sdk.init(dsn=None)
    if fork():
        sentry_sdk.capture_message("child")


@state("harmless", needs="watchfiles")
def watchfiles_imported(fork: ForkPoint) -> None:
    """An import is no runtime."""
    watchfiles = load("watchfiles")

    if fork():
        assert watchfiles.DefaultFilter()


@state("hang", "wrong", needs="watchfiles")
def watchfiles_open(fork: ForkPoint) -> None:
    """A watch whose native thread is not in the child."""
    import tempfile
    from pathlib import Path

    folder = tempfile.mkdtemp()
    native = load("watchfiles._rust_notify")
    watch = native.RustNotify([folder], False, False, 0, True, False)
    if fork():
        Path(folder, "file").write_text("x")
        assert isinstance(watch.watch(50, 20, 3000, None), set), "no change was reported"


@state("hang", needs="openmp")
def openmp_pool(fork: ForkPoint) -> None:
    """GNU's OpenMP keeps its pool after the first parallel region."""
    import ctypes

    library = ctypes.CDLL(_build_openmp())
    assert library.run() >= 1
    if fork():
        library.run()


def _build_openmp() -> str:
    """Compile eight lines of C; only where there is a compiler with OpenMP."""
    import subprocess
    import tempfile
    from pathlib import Path

    folder = Path(tempfile.mkdtemp())
    source = folder / "region.c"
    source.write_text(
        "#include <omp.h>\n"
        "int run(void) {\n"
        "    int threads = 0;\n"
        "    #pragma omp parallel num_threads(3)\n"
        "    { __sync_fetch_and_add(&threads, 1); }\n"
        "    return threads;\n"
        "}\n"
    )
    library = folder / "libregion.so"
    command = ["cc", "-fopenmp", "-shared", "-fPIC", "-o", str(library), str(source)]
    subprocess.run(command, check=True)
    return str(library)


@state("wrong", "hang", needs="io_uring")
def io_uring_shared(fork: ForkPoint) -> None:
    """A ring is memory that both share: the parent takes the child's completion."""
    from guard.corpus import ring

    shared = ring.Ring(8)
    shared.submit_nop(1)
    assert shared.take() == 1
    if fork():
        shared.submit_nop(2)
        fork.wait_for_parent()
        assert shared.wait() == 2
        os._exit(0)
    end = time.monotonic() + 10
    while shared.take() != 2 and time.monotonic() < end:
        os.sched_yield()
    assert sys.platform == "linux"
