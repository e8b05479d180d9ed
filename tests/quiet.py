"""Imported before whatever imports torchao, which has much to say while that happens."""

import logging

from infra.cli import TALKATIVE

for talkative in TALKATIVE:
    logging.getLogger(talkative).setLevel(logging.ERROR)
