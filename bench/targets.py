"""What can be measured: how each server is configured and started, or why it can't be."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.modes import MODEL

ROOT = Path(__file__).parent.parent
CLIENT_KEY = "sk-bench-client-key-0123456789abcdef"
UPSTREAM_KEY = "bench-provider-key-0123456789abcdef"
COMPILED = "BENCH_COMPILED"
"""Names the folder that build_aux/compile.py made; `make bench` sets it. Without it, all run from the sources."""
NGINX_PATHS = "/usr/sbin:/usr/local/sbin:/sbin"
"""Where Debian keeps nginx is not on every user's path."""


class UnavailableError(Exception):
    """This target can't be measured here; the message says why and how to get it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one target lives during a run."""

    folder: Path
    """Its own, for configuration and logs."""
    port: int
    metrics_port: int
    """For servers that insist on a second one."""
    upstream_port: int


@dataclass(frozen=True, slots=True)
class Target:
    """A server ready to be started. An empty command means that the load goes straight to the mock upstream."""

    name: str
    version: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict[str, str])
    headers: tuple[str, ...] = ()
    """What its clients send besides the body."""


def _direct(place: Place) -> Target:
    del place
    return Target("direct", "", ())


NGINX_CONFIG = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 32m;
    client_body_buffer_size 256k;
    keepalive_requests 1000000000;
    upstream mock {{
        server 127.0.0.1:{upstream_port};
        keepalive 512;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://mock;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""


def _nginx(place: Place) -> Target:
    program = shutil.which("nginx") or shutil.which("nginx", path=NGINX_PATHS)
    if program is None:
        raise UnavailableError("nginx is not installed: `make packages` as root, or `apt install nginx-light`")
    config = place.folder / "nginx.conf"
    config.write_text(NGINX_CONFIG.format(folder=place.folder, port=place.port, upstream_port=place.upstream_port))
    version = subprocess.run([program, "-v"], capture_output=True, text=True, check=False).stderr
    return Target(
        "nginx",
        version.rpartition("/")[2].split()[0],
        (program, "-p", str(place.folder), "-e", "stderr", "-c", str(config)),
    )


def _anchor(kind: str) -> Callable[[Place], Target]:
    def build(place: Place) -> Target:
        return Target(
            f"{kind}-anchor",
            "frozen",
            (sys.executable, "-m", f"bench.anchors.{kind}_anchor", str(place.port)),
            {"UPSTREAM": f"http://127.0.0.1:{place.upstream_port}"},
        )

    return build


def mixgate_config(upstream_port: int) -> str:
    """The gateway's configuration: a client key, and a Route with three Endpoints that all lead to the mock.

    JSON is YAML too, so nothing needs quoting rules of its own.
    """
    models = {
        f"{MODEL}-{letter}": {
            "serves": MODEL,
            "context_tokens": 131072,
            "max_output_tokens": 16384,
            "price": {"input": 0.5, "output": 1.5},
        }
        for letter in "abc"
    }
    provider = {
        "dialect": "openai",
        "base_url": f"http://127.0.0.1:{upstream_port}/v1",
        "api_key": "env:BENCH_PROVIDER_KEY",
        "models": models,
    }
    route = {"policy": "ordered", "endpoints": [f"mock/{name}" for name in models]}
    document = {
        "gateway": {"host": "127.0.0.1", "client_keys": ["env:BENCH_CLIENT_KEY"], "in_flight_per_key_max": 1000},
        "providers": {"mock": provider},
        "routes": {MODEL: route},
    }
    return json.dumps(document, indent=1)


def _mixgate(name: str, *, compiled: bool = True, without: str = "") -> Callable[[Place], Target]:
    """The gateway as `make run` starts it, from its sources alone, or without parts of it (`bench.part_serve`)."""

    def build(place: Place) -> Target:
        program = Path(sys.executable).parent / "mixgate"
        if not program.exists():
            raise UnavailableError("mixgate is not installed beside this Python: `make run` once, or use `make bench`")
        folder = os.environ.get(COMPILED, "") if compiled else ""
        config = place.folder / "providers.yaml"
        config.write_text(mixgate_config(place.upstream_port))
        # -P: what is in the working directory must not come before what was compiled.
        command = (sys.executable, "-P", "-m", "bench.part_serve") if without else (str(program),)
        return Target(
            name,
            _installed_version(Path(sys.executable), "mixgate") + (" compiled" if folder else " from sources"),
            (*command, "serve", "--config", str(config), "--port", str(place.port)),
            {
                "BENCH_CLIENT_KEY": CLIENT_KEY,
                "BENCH_PROVIDER_KEY": UPSTREAM_KEY,
                "BENCH_WITHOUT": without,
                "MIXGATE_HOME": str(place.folder / "home"),
                "PYTHONPATH": os.pathsep.join(filter(None, (folder, str(ROOT) if without else ""))),
            },
            (f"Authorization: Bearer {CLIENT_KEY}",),
        )

    return build


def _litellm(name: str, environment: str) -> Callable[[Place], Target]:
    def build(place: Place) -> Target:
        python = _peer_python(environment)
        config = place.folder / "config.yaml"
        parameters = {
            "model": f"openai/{MODEL}",
            "api_base": f"http://127.0.0.1:{place.upstream_port}/v1",
            "api_key": UPSTREAM_KEY,
        }
        config.write_text(json.dumps({"model_list": [{"model_name": MODEL, "litellm_params": parameters}]}))
        program = str(python.with_name("litellm"))
        return Target(
            name,
            _installed_version(python, "litellm"),
            (program, "--config", str(config), "--host", "127.0.0.1", "--port", str(place.port)),
            # Without this, importing it goes to the network for its price table.
            {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_MASTER_KEY": CLIENT_KEY},
            (f"Authorization: Bearer {CLIENT_KEY}",),
        )

    return build


def _vllm_router(place: Place) -> Target:
    python = _peer_python(".venv-bench")
    command = [str(python.with_name("vllm-router")), "--host", "127.0.0.1", "--port", str(place.port)]
    command += ["--worker-urls", f"http://127.0.0.1:{place.upstream_port}", "--policy", "round_robin"]
    command += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(place.metrics_port)]
    command += ["--log-level", "error"]
    return Target("vllm-router", _installed_version(python, "vllm-router"), tuple(command))


def _peer_python(environment: str) -> Path:
    python = ROOT / environment / "bin" / "python"
    if not python.exists():
        raise UnavailableError(f"{environment} is not there: `make bench-peers` makes it")
    return python


def _installed_version(python: Path, package: str) -> str:
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    asked = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    if asked.returncode:
        raise UnavailableError(f"{package} is not installed in {python.parent.parent.name}")
    return asked.stdout.strip()


BUILDERS: dict[str, Callable[[Place], Target]] = {
    "direct": _direct,
    "nginx": _nginx,
    "raw-anchor": _anchor("raw"),
    "aiohttp-anchor": _anchor("aiohttp"),
    "mixgate": _mixgate("mixgate"),
    "mixgate-sources": _mixgate("mixgate-sources", compiled=False),
    "mixgate-routing": _mixgate("mixgate-routing", without="ledger"),
    "mixgate-bare": _mixgate("mixgate-bare", without="ledger,records"),
    "vllm-router": _vllm_router,
    "litellm-1.106": _litellm("litellm-1.106", ".venv-bench"),
    "litellm-1.80": _litellm("litellm-1.80", ".venv-bench-litellm-1.80"),
}
"""Every target by its name on the command line, in the order of the tables."""


def environment_for(target: Target) -> dict[str, str]:
    """The environment a target runs in: ours with its own variables, and as an installed program has it."""
    environment = dict(os.environ)
    # A start that compiles every module again is not what a user has on the second start.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment["PYTHONPATH"] = str(ROOT) if target.name.endswith("-anchor") else ""
    return environment | target.environment
