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
        size = len(head + "".join(f"{line}\r\n" for line in servers.BROWSER_HEADERS) + "\r\n")
        self.assertTrue(478 <= size <= 500, size)

    def test_every_load_has_a_table_and_a_floor_only_where_it_is_one(self):
        for load in loads(False):
            self.assertTrue(callable(report.table_of(load)))
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


if __name__ == "__main__":
    unittest.main()
