"""How the arguments of one call become columns: as they are if they are simple, else broadcast and copied."""

cdef struct Call:
    Py_ssize_t count  # -1: only single numbers so far
    double numbers[6]
    unsigned char flag
    Column inputs[6]
    Column outputs[10]


cdef inline bint _array(object value, int kind, Call* call, Column* column):
    """An array of one axis as a column, if it is one and its length fits those before it."""
    if not cnp.PyArray_CheckExact(value) or cnp.PyArray_NDIM(value) != 1 or cnp.PyArray_TYPE(value) != kind:
        return False
    if not cnp.PyArray_ISBEHAVED_RO(value):
        return False
    cdef Py_ssize_t length = cnp.PyArray_DIM(value, 0)
    column.data = <char*>cnp.PyArray_DATA(value)
    column.step = 0
    if length == 1:
        if call.count < 0:
            call.count = 1
        return True
    if call.count != length:
        if call.count >= 0 and call.count != 1:
            return False
        call.count = length
    column.step = cnp.PyArray_STRIDE(value, 0)
    return True


cdef inline bint _number(object value, int i, Call* call):
    if PyFloat_Check(value) or PyLong_CheckExact(value):
        call.numbers[i] = value
        call.inputs[i].data = <char*>&call.numbers[i]
        call.inputs[i].step = 0
        return True
    return _array(value, cnp.NPY_FLOAT64, call, &call.inputs[i])


cdef inline bint _simple(object f, object k, object t, object fourth, object is_call, object d, Call* call) except -1:
    """Numbers and equally long arrays of one axis, taken as they are: what most calls have. Else False."""
    call.count = -1
    if is_call is True or is_call is False:
        call.flag = is_call is True
        if (
            PyFloat_CheckExact(f) and PyFloat_CheckExact(k) and PyFloat_CheckExact(t) and PyFloat_CheckExact(fourth)
            and PyFloat_CheckExact(d)
        ):
            call.numbers[0], call.numbers[1], call.numbers[2] = f, k, t
            call.numbers[3], call.numbers[5] = fourth, d
            return True
        call.inputs[4].data = <char*>&call.flag
        call.inputs[4].step = 0
    elif not _array(is_call, cnp.NPY_BOOL, call, &call.inputs[4]):
        return False
    return (
        _number(f, 0, call) and _number(k, 1, call) and _number(t, 2, call) and _number(fourth, 3, call)
        and _number(d, 5, call)
    )


cdef object _flags(object is_call):
    """As an array of bools. +1 and -1 would both be true: refused, as are all other numbers but 0 and 1."""
    array = np.asarray(is_call)
    if array.dtype != np.bool_:
        if not ((array == 0) | (array == 1)).all():
            raise ValueError("is_call must be true or false (1 or 0), not +1 and -1")
        array = array.astype(np.bool_)
    return array


cdef tuple _shape(list arrays):
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        shapes.discard(())
    return shapes.pop() if len(shapes) == 1 else np.broadcast_shapes(*shapes)


cdef list _inputs(tuple arguments):
    """Forward, strike, expiry_years, vol (or price), is_call, discount."""
    return [_flags(value) if i == 4 else np.asarray(value, np.float64) for i, value in enumerate(arguments)]


cdef list _general(tuple arguments, tuple shape, list outputs):
    """Any other input, made simple. One that an output overlaps is copied first."""
    cdef list simple = []
    for i, array in enumerate(arguments):
        if array.size == 1:
            array = array.reshape(1)
        else:
            array = np.broadcast_to(array, shape).reshape(-1)
        if not array.flags.aligned or not array.dtype.isnative or any(np.may_share_memory(array, o) for o in outputs):
            array = array.copy()
        simple.append(array)
    return simple


cdef inline bint _taken(object out, int kind, Call* call, Column* column):
    """An output as a column, if it is an array of one axis that no input overlaps."""
    cdef char* low
    cdef char* high
    cdef char* data
    cdef Py_ssize_t reach
    cdef int i
    if not cnp.PyArray_CheckExact(out) or cnp.PyArray_NDIM(out) != 1 or cnp.PyArray_TYPE(out) != kind:
        return False
    if not cnp.PyArray_ISBEHAVED(out) or cnp.PyArray_DIM(out, 0) != call.count or call.count < 1:
        return False
    column.data = <char*>cnp.PyArray_DATA(out)
    column.step = cnp.PyArray_STRIDE(out, 0)
    reach = column.step * (call.count - 1)
    low = column.data + (reach if reach < 0 else 0)
    high = column.data + (reach if reach > 0 else 0) + 8
    for i in range(6):
        data = call.inputs[i].data
        reach = call.inputs[i].step * (call.count - 1)
        if data + (reach if reach < 0 else 0) < high and low < data + (reach if reach > 0 else 0) + 8:
            return False
    return True


cdef inline object _fresh(int kind, Call* call, Column* column):
    cdef cnp.npy_intp length = call.count
    array = cnp.PyArray_EMPTY(1, &length, kind, 0)
    column.data = <char*>cnp.PyArray_DATA(array)
    column.step = 8 if kind == cnp.NPY_FLOAT64 else 1
    return array


cdef list _fresh_rows(int fields, Call* call):
    """An array for each field. Of large ones all are rows of one block: its pages come sooner than those of many, and
    rows that do not start at the same place of a page do not drive each other out of the processor's cache."""
    cdef cnp.npy_intp length = call.count, row, block
    cdef int i
    cdef char* data
    if length < ONE_BLOCK_FROM:
        return [_fresh(cnp.NPY_FLOAT64, call, &call.outputs[i]) for i in range(fields)]
    row = (length + 511) // 512 * 512 + 72  # in doubles: nine cache lines past a multiple of a page
    block = row * fields
    whole = cnp.PyArray_EMPTY(1, &block, cnp.NPY_FLOAT64, 0)
    rows = []
    for i in range(fields):
        data = <char*>cnp.PyArray_DATA(whole) + i * row * 8
        array = cnp.PyArray_SimpleNewFromData(1, &length, cnp.NPY_FLOAT64, data)
        cnp.set_array_base(array, whole)
        call.outputs[i].data = data
        call.outputs[i].step = 8
        rows.append(array)
    return rows


cdef tuple _output(object out, tuple shape, object dtype, str name):
    """The array to return, and a flat one to fill (a view of it wherever that can be)."""
    if out is None:
        flat = np.empty(shape, dtype)
        return flat, flat.reshape(-1)
    if not isinstance(out, np.ndarray) or out.dtype != dtype or out.shape != shape:
        raise ValueError(f"{name} must be an array of {np.dtype(dtype).name} and of shape {shape}")
    if not out.flags.writeable:
        raise ValueError(f"{name} is read-only")
    base = out.view(np.ndarray)  # a matrix has two axes whatever it is reshaped to
    if base.ndim == 1 and base.flags.aligned:
        return out, base
    if base.flags.c_contiguous and base.flags.aligned:
        return out, base.reshape(-1)
    return out, np.empty(base.size, dtype)


cdef object _finish(object out, object flat):
    if not np.may_share_memory(flat, out):
        out[...] = flat.reshape(out.shape)
    return out


cdef inline void _run(Call* call, int fields) noexcept:
    """``fields`` 0: implied volatility."""
    if call.count < FEW:
        if fields:
            active.values(call.count, call.inputs, call.outputs, fields)
        else:
            active.implied_vol(call.count, call.inputs, &call.outputs[0], &call.outputs[1])
        return
    with nogil:
        if fields:
            active.values(call.count, call.inputs, call.outputs, fields)
        else:
            active.implied_vol(call.count, call.inputs, &call.outputs[0], &call.outputs[1])


cdef list _run_general(tuple arrays, tuple shape, tuple outs, tuple kinds, tuple names, int fields):
    """The filled outputs: those given, new ones for None."""
    cdef Call call
    cdef list pairs = [_output(out, shape, kind, name) for out, kind, name in zip(outs, kinds, names)]
    cdef list simple = _general(arrays, shape, [pair[1] for pair, out in zip(pairs, outs) if out is not None])
    cdef int i
    if not _simple(simple[0], simple[1], simple[2], simple[3], simple[4], simple[5], &call):
        raise TypeError("inputs that cannot be taken as arrays of numbers")
    call.count = pairs[0][1].size
    for i in range(len(pairs)):
        flat = pairs[i][1]
        call.outputs[i].data = <char*>cnp.PyArray_DATA(flat)
        call.outputs[i].step = cnp.PyArray_STRIDE(flat, 0)
    _run(&call, fields)
    return [_finish(target, flat) for target, flat in pairs]
