"""Experiments: their schema, their loading from YAML, and overrides.

Every default stands in the schemas, here and in `zoo.models`, and nowhere else; an unknown key is an error that names
it.
"""

from zoo.config.experiment import Config as Config
from zoo.config.loading import find_config as find_config
from zoo.config.loading import load_config as load_config
from zoo.config.loading import shipped_configs as shipped_configs
from zoo.models.architecture import ArchitectureConfig as ArchitectureConfig
from zoo.models.families import ModelConfig as ModelConfig
from zoo.models.families import model_config as model_config
