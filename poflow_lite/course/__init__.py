"""What the course is made with: checks of the exercises, and tools that execute, lint and build its notebooks."""

from poflow_lite.course.notebooks import (
    BUILDS,
    SOURCE,
    build,
    execute,
    find_lessons,
    lint,
    recorded,
    setup_cell,
    write_texts,
)
from poflow_lite.course.site import build_site
from poflow_lite.course.slides import write_slides

__all__ = [
    "BUILDS",
    "SOURCE",
    "build",
    "build_site",
    "execute",
    "find_lessons",
    "lint",
    "recorded",
    "setup_cell",
    "write_slides",
    "write_texts",
]
