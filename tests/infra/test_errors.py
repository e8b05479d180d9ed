import pickle

import pytest

from infra import errors


def all_errors() -> list[type[errors.EditTransferError]]:
    found, waiting = [], [errors.EditTransferError]
    while waiting:
        waiting += (kind := waiting.pop()).__subclasses__()
        found.append(kind)
    return found


def test_the_tree_in_the_docstring_is_the_tree():
    assert all(kind.__name__ in (errors.__doc__ or "") for kind in all_errors())


@pytest.mark.parametrize("kind", all_errors())
def test_every_error_has_a_code_an_exit_code_and_a_status(kind):
    assert kind.code == kind.code.lower() and " " not in kind.code
    assert kind.exit_code in (1, 2, 3, 5) and 400 <= kind.http_status < 600


def test_usage_errors_stop_a_job_and_image_errors_do_not():
    assert all(kind.exit_code == 2 for kind in all_errors() if issubclass(kind, errors.UsageError))
    assert errors.ImageError.exit_code == 3 and errors.LeaseHeld.exit_code == 5


def test_an_error_is_about_one_field_for_one_request_and_about_another_for_the_next():
    shared = errors.ImageError("Too small.", "too_small")
    told = []
    for name in ("query", "image"):
        with pytest.raises(errors.ImageError) as raised, errors.about("both"), errors.about(name):
            raise shared
        told.append((raised.value.param, raised.value.code, str(raised.value)))
    assert told == [("query", "too_small", "Too small."), ("image", "too_small", "Too small.")]
    with pytest.raises(errors.StoreUnavailable) as raised, errors.about("adapter"):
        raise errors.StoreUnavailable("Gone.")
    assert raised.value.param is None


def test_errors_keep_code_and_sentence_on_their_way_between_processes():
    back = pickle.loads(pickle.dumps(errors.ImageError("Too small.", "too_small")))
    assert (str(back), back.code) == ("Too small.", "too_small")
    assert str(pickle.loads(pickle.dumps(errors.PairError("No.")))) == "No."
