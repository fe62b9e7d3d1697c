"""How much of each class a mask holds."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from napari_unet.measure import Amount, amounts

MASKS = arrays(np.uint8, array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6), elements=st.integers(0, 4))


@given(MASKS)
def test_every_voxel_is_counted_once(labels):
    assert sum(amount.voxels for amount in amounts(labels)) == np.count_nonzero(labels)
    for amount in amounts(labels, values=range(1, 6)):
        assert amount.voxels == (labels == amount.value).sum()


@given(MASKS, st.sampled_from([bool, np.int8, np.uint16, np.int32, np.uint64]))
def test_whatever_its_numbers_are_and_wherever_they_lie(labels, dtype):
    """Turned round, it is no longer one piece of memory."""
    labels = labels.astype(dtype)[::-1].T
    assert {a.value: a.voxels for a in amounts(labels)} == {int(v): int((labels == v).sum()) for v in np.unique(labels) if v}


@given(MASKS)
def test_what_lies_within_a_frame_of_background_touches_nothing(labels):
    assert not any(amount.at_border for amount in amounts(np.pad(labels, 1)))


def test_a_class_at_one_face_is_at_the_border():
    for axis in range(3):
        for end in (0, -1):
            labels = np.zeros((4, 5, 6), np.uint16)
            labels[2, 2, 2] = 9
            index = [2, 2, 2]
            index[axis] = end
            labels[tuple(index)] = 300
            assert amounts(labels, values=[1]) == [Amount(1, 0, False), Amount(9, 1, False), Amount(300, 1, True)]


def test_a_picture_has_no_front_and_back():
    labels = np.zeros((5, 5, 1), np.uint8)
    labels[2, 2, 0] = 1
    assert amounts(labels) == [Amount(1, 1, False)]
