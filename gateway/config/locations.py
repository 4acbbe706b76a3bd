"""Where things are: which configuration file is read, and the folder that holds what the gateway keeps."""

from collections.abc import Mapping
from pathlib import Path

from platformdirs import user_data_path

CONFIG_VARIABLE = "MIXGATE_CONFIG"
HOME_VARIABLE = "MIXGATE_HOME"
CONFIG_NAME = "providers.yaml"
PACKAGED_CONFIG = Path(__file__).resolve().parent.parent / CONFIG_NAME
"""The shipped file, as installed. It works unedited with no key at all."""


def find_config(flag: str | Path | None, env: Mapping[str, str], folder: Path) -> Path:
    """The configuration file: the flag's, MIXGATE_CONFIG's, `providers.yaml` in `folder`, or the shipped one."""
    chosen = flag or env.get(CONFIG_VARIABLE)
    if chosen:
        return Path(chosen)
    here = folder / CONFIG_NAME
    return here if here.is_file() else PACKAGED_CONFIG


def home_folder(env: Mapping[str, str]) -> Path:
    """The state folder (ledger, keys, pulled models): MIXGATE_HOME, or the platform's place for a user's data."""
    chosen = env.get(HOME_VARIABLE)
    return Path(chosen).expanduser() if chosen else user_data_path("mixgate", appauthor=False)


def model_file(file: str, home: Path) -> Path:
    """Where the GGUF that a row names is, or will be once it is pulled."""
    return Path(file) if file.startswith("/") else home / "models" / file
