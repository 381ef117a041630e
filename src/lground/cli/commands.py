"""Every verb, in the order a user meets them; each module holds one function and imports what it needs late."""

from lground.cli import app
from lground.cli.anchors import anchors
from lground.cli.compare import compare
from lground.cli.convert import convert
from lground.cli.demo import demo
from lground.cli.doctor import doctor
from lground.cli.evaluate import evaluate
from lground.cli.finetune import finetune
from lground.cli.instances import instances
from lground.cli.prepare import prepare
from lground.cli.pretrain import pretrain
from lground.cli.query import query
from lground.cli.segment import segment
from lground.cli.submit import submit
from lground.cli.synth import synth

for verb in (
    demo,
    synth,
    prepare,
    anchors,
    pretrain,
    finetune,
    instances,
    compare,
    evaluate,
    submit,
    segment,
    query,
    convert,
    doctor,
):
    app.command(verb.__name__)(verb)
