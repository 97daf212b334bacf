"""Write the configuration's JSON schema, for editors: `python .ci/config_schema.py OUT`."""

import json
import sys
from pathlib import Path

from coldbench.core.config import Config

if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(Config.model_json_schema(), indent=1) + "\n")
