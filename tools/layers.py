"""The layers in CONTRIBUTING.md, from the contract in pyproject.toml: python -m tools.layers [--check]"""

from tools import generated
from tools.packages import contents

if __name__ == "__main__":
    generated.main(__doc__ or "", contents)
