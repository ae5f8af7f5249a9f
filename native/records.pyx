"""Bytes of structured arrays: numpy copies and clears them field by field, which costs more than a small batch is worth."""

cimport numpy as cnp
from libc.string cimport memcpy, memset

cnp.import_array()


def blank(cnp.ndarray records not None):
    """Zero every byte."""
    if not cnp.PyArray_ISCARRAY(records):
        raise ValueError("records must be a contiguous, writable array")
    memset(cnp.PyArray_DATA(records), 0, cnp.PyArray_NBYTES(records))


def copy(cnp.ndarray to not None, cnp.ndarray records not None):
    """Copy every byte; both must be as long. They must not overlap."""
    if not cnp.PyArray_ISCARRAY(to) or not cnp.PyArray_ISCARRAY_RO(records):
        raise ValueError("records must be contiguous arrays, the first one writable")
    if cnp.PyArray_NBYTES(to) != cnp.PyArray_NBYTES(records):
        raise ValueError(f"{cnp.PyArray_NBYTES(records)} bytes do not fit into {cnp.PyArray_NBYTES(to)}")
    memcpy(cnp.PyArray_DATA(to), cnp.PyArray_DATA(records), cnp.PyArray_NBYTES(records))
