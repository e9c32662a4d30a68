#!/usr/bin/env python3
"""check_list.py BUILD: does README.md's list say what is so?

Every number has, for every store, a test or a reason why there is none; every test that is named is in its
program's source, runs from its main(), and ctest runs the program, on the rows that are named.
"""
import json
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
TESTS = HERE.parent
STORES = ["file", "redis", "mysql", "ots"]
NUMBERS = 31
ELSEWHERE = {"above", "below"}  # another line of this number has it


def sources():
    """{program: its source} of the C tests that are about stores."""
    found = {}
    for folder in (HERE, TESTS / "unit" / "store"):
        text = (folder / "CMakeLists.txt").read_text()
        for name, source in re.findall(r"add_(?:contract_program|unit_test)\((\w+) ([\w.]+)", text):
            found[name] = folder / (source if source.endswith(".c") else f"{name}.c")
    return found


def functions(source):
    """The tests that its main() runs."""
    text = source.read_text()
    written = set(re.findall(r"^static void (\w+)\(void \*\*state\)", text, re.M))
    run = set(re.findall(r"\b(?:TEST\w*|cmocka_unit_test\w*)\(\s*(\w+)", text))
    return written & run


def commands(build):
    """{(program, row or "")} that ctest runs here."""
    said = subprocess.run(["ctest", "--test-dir", build, "--show-only=json-v1"], check=True, capture_output=True)
    found = set()
    for test in json.loads(said.stdout)["tests"]:
        program, *rest = test.get("command", [""])
        found.add((pathlib.Path(program).name, rest[0] if rest else ""))
    return found


def named(cell):
    """(program, row or "", function or "all") of "`program row`: `test`, `test`; `program`: all"."""
    for part in filter(None, cell.split("; ")):
        match = re.fullmatch(r"`([\w.]+)(?: ([\w*]+))?`: ((?:`\w+`(?:, )?)+|all)", part)
        if not match:
            yield part, "", None
            continue
        for name in re.findall(r"\w+", match[3]):
            yield match[1], match[2] or "", name


class List:
    def __init__(self, build):
        self.sources = sources()
        self.commands = commands(build)
        self.has = [store for store in STORES if ("contract_store", store) in self.commands]
        self.faults = []

    def fault(self, where, what):
        self.faults.append(f"{where}: {what}")

    def check_program(self, where, program, row, stores):
        rows = [row.replace("*", store) for store in stores] if "*" in row else [row]
        for each in rows:
            store = each.split("_")[0]
            if each and store not in stores:
                self.fault(where, f"{each} is a row of another store")
            elif (not each or store in self.has) and (program, each) not in self.commands and \
                    not self.left_out(program):
                self.fault(where, f"ctest does not run {program} {each}")

    def left_out(self, program):
        """For want of a library."""
        return program.split("_")[-1] in set(STORES) - set(self.has)

    def check_tests(self, where, cell, stores):
        for program, row, name in named(cell):
            if name is None:
                self.fault(where, f"what is {program!r}?")
            elif program.endswith(".py"):
                text = (TESTS / "integration" / program).read_text()
                if not re.search(rf"^def {name}\(", text, re.M):
                    self.fault(where, f"{program} has no {name}")
            elif program not in self.sources:
                self.fault(where, f"there is no {program}")
            else:
                if name != "all" and name not in functions(self.sources[program]):
                    self.fault(where, f"{program} does not run {name}")
                self.check_program(where, program, row, stores)

    def check_numbers(self, lines):
        told = set()
        for number, _, tests, *cells in lines:
            stores = [store for store, cell in zip(STORES, cells) if cell == "yes"]
            self.check_tests(number, tests, stores)
            told |= {(int(number), store) for store, cell in zip(STORES, cells) if cell not in ELSEWHERE}
            for store, cell in zip(STORES, cells):
                if cell != "yes" and cell not in ELSEWHERE and not re.fullmatch(r"[A-Z].{15,}\.", cell):
                    self.fault(number, f"{store}: neither a test nor a reason: {cell!r}")
        for number in range(1, NUMBERS + 1):
            for store in STORES:
                if (number, store) not in told:
                    self.fault(number, f"nothing is said of {store}")

    def check(self):
        lines = [[cell.strip() for cell in line.strip("|\n").split("|")]
                 for line in (HERE / "README.md").read_text().splitlines() if line.startswith("| ")]
        self.check_numbers([line for line in lines if line[0].isdigit()])
        for line in lines:
            store = line[0].split(":")[0]
            if len(line) == 2 and store in [*STORES, "all"]:
                self.check_tests(line[0], line[1], STORES if store == "all" else [store])


def main():
    checked = List(sys.argv[1])
    checked.check()
    print("\n".join(checked.faults) or "the list holds")
    return len(checked.faults) > 0


if __name__ == "__main__":
    sys.exit(main())
