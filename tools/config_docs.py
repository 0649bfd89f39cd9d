"""Writes the files that are generated from the settings: homeserver.yaml and docs/configuration.md.

Run by `make config-docs`, from the top folder of the checkout.
"""

from pathlib import Path

from homeserver.config.reference import reference, sample

if __name__ == "__main__":
    Path("homeserver.yaml").write_text(sample(), encoding="utf-8")
    Path("docs/configuration.md").write_text(reference(), encoding="utf-8")
