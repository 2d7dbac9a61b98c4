"""Settings, typed and checked, and where they come from. The only room that reads the environment."""

from assetbatch.config.configuration import Config
from assetbatch.config.database import Database
from assetbatch.config.database import of as database_of
from assetbatch.config.loading import load
from assetbatch.config.secret import Secret, masked
from assetbatch.config.sources import (
    config_file,
    data_folder,
    folders_named,
    is_data_folder_named,
    is_journal,
    sandbox_key,
    state_folder,
    unattended,
    whereabouts,
)

__all__ = [
    "Config",
    "Database",
    "Secret",
    "config_file",
    "data_folder",
    "database_of",
    "folders_named",
    "is_data_folder_named",
    "is_journal",
    "load",
    "masked",
    "sandbox_key",
    "state_folder",
    "unattended",
    "whereabouts",
]
