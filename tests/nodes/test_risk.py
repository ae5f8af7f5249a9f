"""The risk node: positions from a file, sums, limits, the grid, and restoring it."""

from __future__ import annotations

import numpy as np
import pytest

from fabric.errors import ConfigError, InputFileError
from fabric.records import Flags
from native import black
from nodes.records import GREEKS, INSTRUMENT, InstrumentState, Kind
from nodes.risk import Risk

DAY_NS = 86_400 * 10**9
NOW = 1_700_000_000 * 10**9
EXPIRY = NOW + 73 * DAY_NS
YEARS = 0.2
FILE = "symbol,quantity\nCALL,10\nPUT,-5\n\nFUT,2\nETHC,4\nLATER,1\n"
IDS = {"CALL": 10, "PUT": 11, "FUT": 1, "ETHC": 20, "OTHER": 30}


class Kept:
    def __init__(self):
        self.flushes = []

    def write(self, records, now_ns):
        self.flushes.append(records.copy())


@pytest.fixture
def make(tmp_path):
    def build(*, text=FILE, define=True, **config):
        path = tmp_path / "positions.csv"
        path.write_text(text)
        outputs = {name: name for name in ("risk", "breach", "grid")}
        config = {"positions": path, **config}
        node = Risk("risk", config=config, inputs={"instrument": "i", "greeks": "g"}, outputs=outputs)
        for port in node.output_ports.values():
            port.sink = Kept()
        node.on_start()
        if define:
            send(node, node.instrument, definitions())
        return node

    return build


def flush(node):
    """What the call published, by output."""
    published = {}
    for name, port in node.output_ports.items():
        port.sink.flushes.clear()
        port.flush(NOW)
        published[name] = np.concatenate([port.record.zeros(0), *port.sink.flushes])
    return published


def send(node, port, records):
    node.on_records(port, records, NOW)
    return flush(node)


def definitions():
    rows = [
        ("CALL", "BTC", Kind.CALL, 110.0, 1.0),
        ("PUT", "BTC", Kind.PUT, 90.0, 2.0),
        ("FUT", "BTC", Kind.FUTURE, 0.0, 3.0),
        ("ETHC", "ETH", Kind.CALL, 50.0, 1.0),
        ("OTHER", "BTC", Kind.CALL, 130.0, 1.0),
    ]
    symbols, underlyings, kinds, strikes, multipliers = zip(*rows, strict=True)
    return INSTRUMENT.build(
        instrument=[IDS[symbol] for symbol in symbols],
        symbol=np.array(symbols, "S32"),
        underlying=np.array(underlyings, "S8"),
        kind=kinds,
        strike=strikes,
        multiplier=multipliers,
        expiry_ns=EXPIRY,
    )


def greeks(*rows, flags=0, event=NOW):
    """(symbol, forward, iv) each."""
    symbols, forwards, vols = zip(*rows, strict=True)
    strikes = {"CALL": 110.0, "PUT": 90.0, "ETHC": 50.0, "OTHER": 130.0}
    strike = np.array([strikes[symbol] for symbol in symbols])
    call = np.array([symbol != "PUT" for symbol in symbols])
    expiry = (EXPIRY - event - np.arange(len(rows))) / (365 * DAY_NS)  # each at the time of its own record
    values = black.greeks2(np.array(forwards), strike, expiry, np.array(vols), call)
    fields = {name: getattr(values, name) for name in values._fields if name in GREEKS.dtype.names}
    return GREEKS.build(
        instrument=[IDS[symbol] for symbol in symbols], forward=forwards, iv=vols, flags=flags,
        ts_event_ns=event + np.arange(len(rows)), ts_origin_ns=event + 100 - np.arange(len(rows)), **fields,
    )  # fmt: skip


def test_sums_by_underlying_and_in_total(make):
    node = make()
    batch = greeks(("CALL", 100.0, 0.6), ("OTHER", 100.0, 0.6), ("PUT", 100.0, 0.7), ("ETHC", 45.0, 0.8))
    out = send(node, node.greeks, batch)["risk"]
    assert out["underlying"].tolist() == [b"BTC", b"ETH", b""]
    assert (out["instrument"] == 0).all()
    assert out["flags"].tolist() == [0, 0, Flags.LAST_IN_EVENT]
    call, _, put, eth = batch
    for name in ("delta", "gamma", "vega", "theta", "rho"):
        future = 6.0 if name == "delta" else 0.0
        assert out[name][0] == pytest.approx(10 * call[name] - 10 * put[name] + future, rel=1e-15)
        assert out[name][1] == 4 * eth[name]
        assert out[name][2] == pytest.approx(out[name][0] + out[name][1], rel=1e-15)
    assert out["value"][0] == pytest.approx(10 * call["price"] - 10 * put["price"], rel=1e-15)
    assert out["positions"].tolist() == [3, 1, 5]
    assert out["priced"].tolist() == [3, 1, 4]
    assert out["ts_event_ns"].tolist() == [NOW + 2, NOW + 3, NOW + 3]
    assert out["ts_origin_ns"].tolist() == [NOW + 98, NOW + 97, NOW + 97]
    report = node.report()
    assert report["by_underlying"]["ETH"]["vega"] == out["vega"][1]
    assert report["undefined_symbols"] == ["LATER"]


def test_only_what_matters_is_published(make):
    node = make()
    assert not len(send(node, node.greeks, greeks(("OTHER", 100.0, 0.6)))["risk"])
    out = send(node, node.greeks, greeks(("ETHC", 45.0, 0.6), ("ETHC", 46.0, 0.6)))["risk"]
    assert out["underlying"].tolist() == [b"ETH", b""]
    assert out["vega"][0] == 4 * greeks(("ETHC", 46.0, 0.6), event=NOW)["vega"][0]


def test_stale_and_carried_are_told(make):
    node = make()
    send(node, node.greeks, greeks(("CALL", 100.0, 0.6), ("ETHC", 45.0, 0.6)))
    put = greeks(("PUT", 100.0, 0.7), flags=int(Flags.STALE | Flags.VOL_CARRIED))
    out = send(node, node.greeks, put)["risk"]
    assert (out["flags"] & Flags.STALE != 0).all()
    assert out["stale"].tolist() == out["carried"].tolist() == [1, 1]
    assert out["stale_vega"].tolist() == [10 * put["vega"][0]] * 2
    assert out["stale_delta"].tolist() == [abs(10 * put["delta"][0])] * 2
    out = send(node, node.greeks, greeks(("ETHC", 45.0, 0.7)))["risk"]
    assert (out["flags"] & Flags.STALE != 0).tolist() == [False, True]


def test_greeks_may_come_before_the_definition(make):
    node = make(define=False)
    out = send(node, node.greeks, greeks(("CALL", 100.0, 0.6)))
    assert not any(len(records) for records in out.values())
    out = send(node, node.instrument, definitions())["risk"]
    assert out["underlying"].tolist() == [b"BTC", b""]
    assert node.report()["awaiting_definition"] == 0


def test_limits_are_told_on_crossing_and_on_return(make):
    node = make(limits={"ETH": {"delta": 2.0}, "total": {"vega": 1e9, "delta": 2.0}})
    inside, outside = greeks(("ETHC", 40.0, 0.5)), greeks(("ETHC", 60.0, 0.5))
    assert abs(4 * inside["delta"][0]) < 2 < abs(4 * outside["delta"][0])
    # the total holds the future's delta of 6 as well: above its limit all the time
    first = send(node, node.greeks, inside)["breach"]
    assert first[["underlying", "measure", "active"]].tolist() == [(b"", b"delta", 1)]
    crossed = send(node, node.greeks, outside)["breach"]
    assert crossed[["underlying", "measure", "limit", "active"]].tolist() == [(b"ETH", b"delta", 2.0, 1)]
    assert crossed["value"][0] == 4 * outside["delta"][0]
    assert not len(send(node, node.greeks, outside)["breach"])
    assert node.report()["breached_now"] == ["ETH/delta", "total/delta"]
    kept = send(node, node.greeks, inside)["breach"]
    assert kept[["underlying", "measure", "active"]].tolist() == [(b"ETH", b"delta", 0)]
    assert node.report()["breaches"] == 2


def test_grid_revalues_every_position(make):
    node = make(grid_spot_moves=[-0.5, 0.0, 0.1], grid_vol_moves=[-0.7, 0.0], limits={"BTC": {"worst_pnl": 1.0}})
    assert node.timer_ns == 10**9
    send(node, node.greeks, greeks(("CALL", 100.0, 0.6), ("PUT", 100.0, 0.7)))
    send(node, node.greeks, greeks(("ETHC", 45.0, 0.8)))
    node.on_timer(NOW)
    out = flush(node)
    cells = out["grid"]
    assert len(cells) == 3 * 3 * 2
    assert (cells["flags"] & Flags.LAST_IN_EVENT != 0).tolist() == [False] * 17 + [True]
    btc = cells[cells["underlying"] == b"BTC"]
    for cell in btc:
        forward = 100.0 * (1 + cell["spot_move"])
        expiry = [(EXPIRY - NOW - i) / (365 * DAY_NS) for i in (0, 1)]
        call = black.price(forward, 110.0, expiry[0], max(0.6 + cell["vol_move"], 0), True)
        put = black.price(forward, 90.0, expiry[1], max(0.7 + cell["vol_move"], 0), False)
        base = black.price(100.0, 110.0, expiry[0], 0.6, True), black.price(100.0, 90.0, expiry[1], 0.7, False)
        assert cell["value"] == pytest.approx(10 * call - 10 * put, abs=1e-12)
        profit = 10 * (call - base[0]) - 10 * (put - base[1]) + 6.0 * (forward - 100.0)
        assert cell["pnl"] == pytest.approx(profit, abs=1e-12)
    assert btc["pnl"][(btc["spot_move"] == 0) & (btc["vol_move"] == 0)].tolist() == [0.0]
    total, eth = cells[cells["underlying"] == b""], cells[cells["underlying"] == b"ETH"]
    assert np.array_equal(total["pnl"], btc["pnl"] + eth["pnl"])
    assert [(int(c["row"]), int(c["column"])) for c in btc] == [(i, j) for i in range(3) for j in range(2)]
    risk = out["risk"]
    assert risk["worst_pnl"].tolist() == [group["pnl"].min() for group in (btc, eth, total)]
    assert risk["worst_spot_move"].tolist() == [-0.5, -0.5, -0.5]
    assert out["breach"][["measure", "active"]].tolist() == [(b"worst_pnl", 1)]
    node.on_timer(NOW)
    assert not any(len(records) for records in flush(node).values()), "nothing changed"


def test_the_timer_says_nothing_without_prices(make):
    node = make(define=False)
    node.on_timer(NOW)
    assert not any(len(records) for records in flush(node).values())
    send(node, node.instrument, definitions())
    node.on_timer(NOW)
    out = flush(node)
    assert out["risk"]["delta"].tolist() == [6.0, 6.0], "a future's delta is known before any greeks"
    assert np.isnan(out["grid"]["pnl"]).all(), "but not its forward"


def test_closed_instruments_leave_the_sums(make):
    node = make()
    send(node, node.greeks, greeks(("CALL", 100.0, 0.6), ("ETHC", 45.0, 0.8)))
    closed = definitions()[:1].copy()
    closed["state"] = InstrumentState.CLOSED
    send(node, node.instrument, closed)
    out = send(node, node.greeks, greeks(("ETHC", 45.0, 0.8)))["risk"]
    assert out["priced"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("name,amount\n", 1, "header"),
        ("", 1, "header"),
        ("symbol,quantity\nA,1\nB,much\n", 3, "'much' is not a number"),
        ("symbol,quantity\nA,nan\n", 2, "not a number"),
        ("symbol,quantity\nA,1\nA,2\n", 3, "twice"),
        ("symbol,quantity\nA\n", 2, "1 columns"),
        ("symbol,quantity\n,3\n", 2, "symbol"),
    ],
)
def test_bad_positions_name_file_and_line(make, text, line, words):
    with pytest.raises(InputFileError, match=words) as caught:
        make(text=text)
    assert caught.value.line == line
    assert caught.value.file.endswith("positions.csv")


def test_missing_positions(make, tmp_path):
    with pytest.raises(InputFileError, match="no such file"):
        make(positions=tmp_path / "nowhere.csv")
    with pytest.raises(InputFileError, match="can't be read"):
        make(positions=tmp_path)


def test_bad_settings_name_the_key(make):
    with pytest.raises(ConfigError, match=r"nodes.risk.limits.BTC.vegga.*did you mean 'vega'"):
        make(limits={"BTC": {"vegga": 1.0}})
    with pytest.raises(ConfigError, match=r"nodes.risk.limits.total.vega.*not a limit"):
        make(limits={"total": {"vega": -1.0}})
    with pytest.raises(ConfigError, match=r"nodes.risk.grid_interval"):
        make(grid_interval="soon")


@pytest.mark.parametrize("seed", range(5))
def test_restored_it_goes_on_with_the_same_bits(make, seed):
    limits = {"BTC": {"delta": 3.0, "stale_vega": 1.0}, "total": {"worst_pnl": 30.0}}
    whole, other = (make(define=False, limits=limits) for _ in range(2))
    rng = np.random.default_rng(seed)
    cut, seen = int(rng.integers(0, 40)), 0
    for i in range(40):
        if i == cut:
            state = other.checkpoint()
            other = make(define=False, limits=limits)
            other.restore(state)
        names = rng.choice(["CALL", "PUT", "ETHC", "OTHER"], int(rng.integers(1, 6)))
        rows = [(str(name), rng.uniform(40, 120), rng.uniform(0.3, 1.0)) for name in names]
        batch = greeks(*rows, flags=int(rng.choice([0, 2, 4])), event=NOW + i * 10**9)
        results = []
        for node in (whole, other):
            if i % 4 == 0 and i < 20:
                node.on_records(node.instrument, definitions()[i // 4 : i // 4 + 1], NOW)
            node.on_records(node.greeks, batch, NOW)
            if i % 3 == 0:
                node.on_timer(NOW)
            results.append({name: records.tobytes() for name, records in flush(node).items()})
        assert results[0] == results[1]
        seen += sum(map(len, results[0].values()))
    assert whole.report() == other.report()
    assert seen > 10_000
    assert whole.report()["breaches"] > 1


def test_other_positions_are_not_resumed(make):
    state = make().checkpoint()
    with pytest.raises(InputFileError, match="resumed"):
        make(text="symbol,quantity\nCALL,11\n").restore(state)
