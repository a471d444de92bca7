#!/usr/bin/env python3
"""Tests of the benchmark's own arithmetic and drawing; they start no server."""

import unittest
import xml.etree.ElementTree as ET

import bench
import charts
import report
import servers
from figures import Figure, compared, figure
from loads import loads


def result(cost, notes=(), **more):
    return {"notes": list(notes), "errors": [], "cpu": {"wall_s": 1.0, "server_us_per_delivery": cost}, **more}


DISTURBED = ["disturbed: other processes used 1.00 s of CPU in 2.00 s, among them cc 1.00"]
COST = "cpu.server_us_per_delivery"


class Figures(unittest.TestCase):
    def test_median_and_range(self):
        f = figure([result(3), result(1), result(2)], COST)
        self.assertEqual((f.middle, f.low, f.high, f.count, f.disturbed), (2, 1, 3, 3, False))
        self.assertTrue(f.unsteady)
        self.assertIsNone(figure([result(None)], COST))

    def test_disturbed_runs_count_only_if_there_are_no_others(self):
        f = figure([result(1), result(9, DISTURBED)], COST)
        self.assertEqual((f.middle, f.count, f.disturbed), (1, 1, False))
        f = figure([result(8, DISTURBED), result(9, DISTURBED)], COST)
        self.assertTrue(f.disturbed)
        self.assertTrue(report.span(f).endswith("†"))

    def test_noise_is_not_a_result(self):
        a, b = Figure(1.0, 0.9, 1.1, 3), Figure(2.0, 1.9, 2.1, 3)
        self.assertEqual(compared(a, b), "0.50 × (the ranges lie apart)")
        self.assertIn("overlap", compared(a, Figure(1.2, 1.05, 1.3, 3)))
        self.assertIn("too few", compared(a, Figure(2.0, 2.0, 2.0, 1)))
        self.assertIn("not told", compared(a, Figure(2.0, 1.9, 2.1, 3, True)))


class Loads(unittest.TestCase):
    def test_requests_are_as_long_as_a_browsers(self):
        head = "GET /sub?id=pl0000x0 HTTP/1.1\r\nHost: 127.0.0.1:40000\r\n"
        # What pushload writes itself.
        own = {
            "longpoll": "",
            "sse": "Accept: text/event-stream\r\n",
            "ws": "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {'x' * 24}\r\n",
        }
        for kind, low, high in (("longpoll", 478, 500), ("sse", 490, 512), ("ws", 415, 440)):
            text = head + own[kind] + "".join(f"{line}\r\n" for line in servers.BROWSER_HEADERS[kind]) + "\r\n"
            self.assertTrue(low <= len(text) <= high, (kind, len(text)))
            names = [line.partition(":")[0].lower() for line in text.split("\r\n")[1:]]
            self.assertEqual(sorted(filter(None, names)), sorted(filter(None, set(names))), kind)

    def test_no_process_opens_too_many_files(self):
        for load in loads(False):
            options = dict(zip(load.options[::2], load.options[1::2]))
            clients = options.get("--subs", 0)
            # What pushload would start itself, at most 18,000 clients in each.
            processes = options.get("--procs", max(1, -(-clients // 18000)))
            self.assertLess(clients / processes, 18_500, load.key)
            self.assertLess(clients / load.workers, 18_500, load.key)
            self.assertTrue(load.reuseport or clients <= 18_000, load.key)

    def test_loads_and_peers_can_be_chosen(self):
        chosen, extra = bench.choose(True, "park-sse,publish-4,sizing", "floor,nchan")
        self.assertEqual([(c.key, c.peers) for c in chosen], [("park-sse", ("floor", "nchan")), ("publish-4", ("nchan",))])
        self.assertEqual(extra, [])
        self.assertEqual(bench.choose(True, "sizing", None), ([], ["sizing"]))
        self.assertEqual(len(bench.choose(False, None, None)[0]), len(loads(False)))
        for only, peers, words in (("x", None, "no load x"), (None, "y", "no peer y"), ("many", "nchan", "None of these")):
            with self.assertRaisesRegex(servers.BenchError, words):
                bench.choose(True, only, peers)

    def test_connections_leave_a_sixteenth_free(self):
        for clients, workers in ((1_000_000, 56), (500_000, 30), (1000, 1)):
            slots = bench.connections_for(clients, workers)
            deviation = (clients / workers * (1 - 1 / workers)) ** 0.5
            self.assertGreater(slots - (clients / workers + 5 * deviation + 16), slots // 16)
        self.assertEqual(bench.connections_for(1_000_000, 56), 19_771)

    def test_every_load_has_a_table_and_a_floor_only_where_it_is_one(self):
        for load in loads(False):
            self.assertTrue(callable(report.table_of(load)))
            self.assertIn(load.kind, servers.BROWSER_HEADERS)
            if load.command == "publish" and load.workers > 1:
                self.assertNotIn("floor", load.peers)

    def test_configurations_are_complete(self):
        for peer in servers.PEERS.values():
            self.assertNotIn("{", peer.http.format(shm="1m"))

    def test_a_small_machine_is_refused_with_a_sentence(self):
        with self.assertRaisesRegex(servers.BenchError, r"need about 12500.0 GB.*CLIENTS=\d+ would fit"):
            bench.check_machine(10**9, 20000)
        with self.assertRaisesRegex(servers.BenchError, "20,000 are needed"):
            bench.check_machine(1, 1024)


class Charts(unittest.TestCase):
    def test_axes_reach_the_largest_value(self):
        for top in (0.3, 1, 7.2, 99, 10234, 123456):
            axis = charts.steps(top)
            self.assertTrue(axis[-1] >= top and 2 <= len(axis) <= 7, (top, axis))

    def test_files_are_well_formed_and_escape_text(self):
        for text in (
            charts.bars("a < b", "c", [("heading",), ("floor", "x & y", 1.0, 0.9, 1.2, "1.00")]),
            charts.curves("t", "s", report.CURVE, [("floor", "f", list(range(15))), ("nchan", "n", [2] * 15)], "ms"),
        ):
            ET.fromstring(text)
            self.assertIn("prefers-color-scheme: dark", text)


class Report(unittest.TestCase):
    def test_publishing_has_ratios_only_beside_a_floor(self):
        run = {**result(1), "cpu": {"wall_s": 1.0, "server_us_per_publish": 4.0}, "publish": {}}
        self.assertEqual(report.publish_table({"nginx": [run], "compact": [run]})[2][2:5], ["–", "–", "–"])
        self.assertEqual(report.publish_table({"floor": [run], "nginx": [run]})[2][2:5], ["+0.00", "1.00", "1.00"])

    def test_tables_are_rectangular_and_say_what_went_wrong(self):
        lost = result(2, DISTURBED, delivery={"lost": 7}, log=["[alert] x"])
        lost["errors"] = ["7 messages lost"]
        rows = report.fanout_table({"floor": [result(1)], "compact": [result(2), lost]})
        self.assertEqual(len({len(row) for row in rows}), 1)
        text = report.markdown(rows)
        for words in ("| 7 |", "1 of 2", "7 messages lost; 1 lines in the error log", "| 2.00 |", "+1.00"):
            self.assertIn(words, text)


    def test_the_last_of_many(self):
        def run(p50, messages, done, **more):
            curve = {"count": done, "p50": p50, "max": 2 * p50}
            return {**result(2), "messages": messages, "completion_us": curve, "delivery": {"lost": 0}, **more}

        rows = report.last_table({"floor": [run(200e3, 10, 10)], "nchan": [run(300e3, 10, 9), run(0, 10, 0)], "compact": [run(0, 5, 0)]})
        self.assertEqual(len({len(row) for row in rows}), 1)
        self.assertEqual(rows[2][1:5], ["300", "1.50", "600", "11 of 20 messages"])
        self.assertEqual(rows[3][1:3], ["never", "–"])

    def test_memory_is_told_with_and_without_slots(self):
        memory = {"server": {"base": {"pss_anon": 489e6}, "parked": {"pss_anon": 1719e6}}, "per_conn": {"user_anon": 1230}}
        run = {**result(2), "label": "compact", "subs": 1_000_000, "workers": 56, "messages": 1, "memory": memory}
        run.update(delivery={"lost": 0, "expected": 1}, completion_us={"count": 0})
        self.assertEqual(report.million_table([run])[1][7:11], ["1.72", "0.49", "–", "–"])
        run.update(connections=19_900, slot_bytes=432.0)
        self.assertEqual(report.million_table([run])[1][7:11], ["1.72", "0.49", "0.48", "1.24"])

    def test_charts_have_a_heading_for_each_load_there_is(self):
        def runs(load, peer, cost):
            more = {"memory": {"per_conn": {"user_anon": cost}}, "latency_us": {"curve": [1] * len(report.CURVE)}}
            return {"load": load, "peer": peer, "result": {**result(cost), **more}}

        files = report.chart_files([runs("park-ws", "floor", 70), runs("fanout-1-sse", "floor", 2), runs("fanout-1-sse", "nchan", 4)])
        self.assertEqual(sorted(files), ["cpu-streams.svg", "memory.svg"])
        self.assertIn("= 2.00 × floor", files["cpu-streams.svg"])
        self.assertNotIn(">EventSource<", files["memory.svg"])
        self.assertIn(">WebSocket<", files["memory.svg"])
        for text in files.values():
            ET.fromstring(text)
        every = {load.key for load in loads(False)}
        self.assertLessEqual({load for bar in report.BARS for load, _ in bar[3]}, every)
        self.assertLessEqual(set(report.CHARTS), {*(bar[0] for bar in report.BARS), "latency.svg"})

    def test_verdicts_name_the_load(self):
        runs = [
            {"load": "last-4-sse", "peer": peer, "result": {**result(1), "completion_us": {"count": 1, "p50": p50 + n}}}
            for peer, p50 in (("compact", 100), ("nchan", 200))
            for n in range(3)
        ]
        self.assertEqual(
            report.verdicts(runs),
            ["* time until the last EventSource client has a message, 4 workers, ours against Nchan: 0.50 × (the ranges lie apart)."],
        )


if __name__ == "__main__":
    unittest.main()
