"""Django's commands for this project."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    # Not the folder of this file, in which no name of ours would be found.
    sys.path[0] = str(Path.cwd())
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.apps.site.settings"
    execute_from_command_line(sys.argv)
