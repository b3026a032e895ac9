"""The schema of an experiment, its loading from YAML, and overrides.

Every default stands in these schemas and nowhere else; an unknown key is an error that names it.
"""

from zoo.config.architecture import ArchitectureConfig as ArchitectureConfig
from zoo.config.experiment import Config as Config
from zoo.config.loading import find_config as find_config
from zoo.config.loading import load_config as load_config
from zoo.config.loading import shipped_configs as shipped_configs
from zoo.config.models import ModelConfig as ModelConfig
from zoo.config.models import model_config as model_config
