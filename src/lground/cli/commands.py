"""Every verb, in the order a user meets them; each module holds one function and imports what it needs late."""

from lground.cli import app
from lground.cli.prepare import prepare
from lground.cli.synth import synth

for verb in (synth, prepare,):
    app.command(verb.__name__)(verb)
