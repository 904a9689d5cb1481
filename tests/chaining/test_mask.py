"""Brain masks out of labels."""

import numpy as np

from monai_unetpp.chaining.crops import mask_of


def test_what_the_labels_enclose_belongs_to_the_mask_and_other_labels_do_not():
    labels = np.zeros((9, 10, 11), np.int64)
    labels[1:8, 1:8, 1:8] = 4
    labels[3:5, 3:5, 3:5] = 0  # a hole
    labels[5, 5, 5] = 9  # another label inside
    labels[8, 9, 10] = 9  # and one outside
    labels[6, 6, 7] = 0  # a notch, open to the outside
    expected = np.zeros(labels.shape, bool)
    expected[1:8, 1:8, 1:8] = True
    expected[6, 6, 7] = False
    assert np.array_equal(mask_of(labels, (4,)), expected)
    assert not mask_of(labels, (7,)).any()
