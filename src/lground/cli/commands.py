"""Every verb, in the order a user meets them; each module holds one function and imports what it needs late."""

from lground.cli import app
from lground.cli.prepare import prepare

for verb in (prepare,):
    app.command(verb.__name__)(verb)
