"""The version of this software, in one place: packaging, `--version` and metrics take it from here.

https://semver.org/spec/v2.0.0.html
"""

VERSION = "0.1.0"
