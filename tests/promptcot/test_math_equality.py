"""Two answers mean the same or they do not: shapes, units and values, led by the gold answer."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.benchmark_items import MathGold
from promptcot.verification.math_answers import MathGrader, normalise_answer, settle_by_text
from promptcot.verification.math_boxes import extract_answer

ROOT = Path(__file__).parents[2]

NUMBERS = [
    (r"\frac{\pi}{2}", r"\pi/2", True),
    (r"\frac{\pi}{2}", r"0.5\pi", True),
    (r"2\sqrt{3}", r"\sqrt{12}", True),
    (r"2\sqrt{3}", "2sqrt(3)", True),
    (r"2\sqrt{3}", "2√3", True),
    (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt2}{2}", True),
    ("5", "5.0", True),
    ("5", "5.", True),
    ("-5", "−5", True),
    ("10", "1e1", True),
    (r"\log_2 3", r"\frac{\ln 3}{\ln 2}", True),
    (r"\log_2 3", r"\log_3 2", False),
    ("7.389", "e^2", False),
    (r"\sqrt[3]{2}", "2^{1/3}", True),
    ("-2", r"\sqrt[3]{-8}", True),
    ("2^{10}", "1024", True),
    ("10!", "3628800", True),
    (r"\binom{10}{3}", "120", True),
    (r"\binom{10}{3}", r"{10 \choose 3}", True),
    (r"\frac{4 \cdot 999^{4}}{27}", "4*999^4/27", True),
    (r"\frac{4 \cdot 999^{4}}{27}", "147556739852", False),
    (r"\frac{4 \cdot 999^{4}}{27}", "147556443852", True),
    ("42", r"\approx 42", True),
    ("42", "(42)", True),
    ("42", "[42]", True),
    ("42", r"\{42\}", True),
    ("42", "4 2", False),
    ("42", "42,0", False),
    ("42", "x+42", False),
    ("42", "42x", False),
    ("42", r"6 \cdot 7", True),
    ("0.5", "1/2", True),
    ("0.5", ".5", True),
    ("0.5", "50", False),
    ("3:2", "3 : 2", True),
    ("3:2", "2:3", False),
    ("2:3:4", "2:3:4", True),
    ("2:3:4", "4:3:2", False),
    ("2:3:4", "4:6:8", True),
    ("12.5", r"12\frac12", True),
    ("12.5", "12 1/2", True),
    (r"1\frac{2}{3}", r"\frac{2}{3}", False),
    (r"\frac{22}{7}", r"\pi", False),
    ("3.14", r"\pi", False),
    (r"6.02 \times 10^{23}", "6.02e23", True),
    (r"6.02 \times 10^{23}", r"6.02 \cdot 10^{23}", True),
    (r"6.02 \times 10^{23}", "602000000000000000000000", True),
    (r"6.02 \times 10^{23}", r"6.02 \times 10^{22}", False),
    ("5!", "120", True),
    ("0", "0.0", True),
    ("0", "-0", True),
    ("1", r"0.\overline{9}", True),
    (r"\frac{5}{6}", r"0.8\overline{3}", True),
    ("10^{100}", "10^{100}+1", False),
    (r"1\frac{4}{5}", "9/5", True),
    (r"1\frac{4}{5}", "1.8", True),
    (r"1\frac{4}{5}", "1 4/5", True),
    (r"137 \frac{1}{2}", "137.5", True),
    (r"\frac{1}{3}", "0.333", False),
    (r"\frac{1}{3}", "0.3333333333", False),
    (r"\frac{1}{3}", r"0.\overline{3}", True),
    ("2^{1009}", "2^{1009}+1", False),
    ("2^{1009}", r"2\cdot 2^{1008}", True),
    (r"\frac{100!}{2^{50}}", r"100!\cdot 2^{-50}", True),
    ("5", "9^{9^{9^9}}", False),
    ("5", "(10^9)!", False),
    ("3", r"\sqrt{10} \approx 3", False),
    (r"\sqrt{10}", r"\sqrt{10} \approx 3.16", True),
    (r"\frac{\log 2}{\log 2-\log 3}", r"\frac{\ln 2}{\ln (2/3)}", True),
    ("10080", r"10\,080", True),
    (".0000672", r"6.72\times 10^{-5}", True),
    ("3:2", "3/2", True),
    (r"\sqrt{51}", "7.141428", False),
]
EXPRESSIONS = [
    ("x^2+2x+1", "(x+1)^2", True),
    ("x^2+2x+1", "(x-1)^2", False),
    (r"\frac{x+1}{2}", "(x+1)/2", True),
    (r"\frac{x+1}{2}", "x+1/2", False),
    ("p - q", "-q+p", True),
    ("p - q", "q-p", False),
    (r"\cot x", r"1/\tan x", True),
    (r"\cot x", r"\tan x", False),
    (r"\sin^2 x", r"(\sin x)^2", True),
    (r"\sin^2 x", r"\sin(x)^2", True),
    (r"\sin^2 x", r"\sin x^2", False),
    ("e^{2}", "e^2", True),
    ("3+4i", "4i+3", True),
    ("3+4i", "3-4i", False),
    (r"\lfloor \sqrt{n-1} \rfloor", r"\lceil \sqrt{n} \rceil - 1", True),
    ("2^{k-1}", r"\frac{2^k}{2}", True),
    ("C", "C. 5", True),
    ("C", "c", False),
    ("n^2", "k^2", False),
    (r"\sqrt{x^2}", "|x|", True),
    (r"\sqrt{x^2+1}", r"\sqrt{1+x^2}", True),
    ("a^2b^3", "b^3a^2", True),
    ("ab", "ba", True),
    ("|x|", "x", False),
    (r"\lceil n / 2\rceil+1", r"\lfloor (n+1)/2\rfloor + 1", True),
    (r"\binom{2n}{n}", r"\frac{(2n)!}{(n!)^2}", True),
    ("n(n-1)/2", r"\binom{n}{2}", True),
    ("6+9i", "9i+6", True),
    (r"\cot x", r"\frac{\cos x}{\sin x}", True),
]
SEVERAL = [
    ("1,024", "2^{10}", True),
    ("3+4i", "(3,4)", False),
    ("42", "42 or 42", True),
    ("42", r"42 \pm 1", False),
    ("42", r"\pm 42", False),
    (r"\text{(A), (C)}", "A, C", True),
    ("1, 2, 3", r"\{3,2,1\}", True),
    ("1, 2, 3", "(1,2,3)", False),
    ("1,-2", "-2, 1", True),
    ("1,-2", "-2,1", True),
    ("1,-2", r"\{-2, 1\}", True),
    ("1,-2", "x=-2 or x=1", True),
    (r"11,\! 111,\! 111,\! 100", "11111111100", True),
    (r"1 \pm \sqrt{19}", r"1+\sqrt{19}, 1-\sqrt{19}", True),
    (r"1 \pm \sqrt{19}", r"1+\sqrt{19}", False),
    (r"\{1\pm\sqrt{5},-2\}", r"-2,1-\sqrt5,1+\sqrt5", True),
    ("3", "3 or 4", False),
    ("5", "maybe five or six", False),
    (r"10,\!080", "10{,}080", True),
    ("58,500", "58500", True),
    ("58,500", "58, 500", False),
]
TUPLES = [
    ("(3,-2)", "(3, -2)", True),
    ("(3,-2)", "x=3,y=-2", True),
    ("(3,-2)", "y=-2, x=3", True),
    ("(3,-2)", "3,-2", True),
    ("(3,-2)", "[3,-2]", False),
    ("(3,-2)", r"\{3,-2\}", False),
    ("(3,-2)", "(x,y)=(3,-2)", True),
    ("(3,-2)", "P(3,-2)", True),
    ("(1,2,3)", "[1,2,3]", True),
    ("(1,2,3)", "(1,3,2)", False),
    (r"(4, \log _{10} 2)", r"(4,\log 2)", True),
    ("(2,4)", "(4,2)", False),
    ("(2,4)", "x=2, y=4", True),
    ("(1,1), (3,2)", "(3,2),(1,1)", True),
    ("(1,1), (3,2)", "(3,2)", False),
    ("(312,123,231)", "(312, 123, 231)", True),
]
REGIONS = [
    (r"(2,\infty)", "x>2", True),
    (r"(2,\infty)", r"x\ge 2", False),
    (r"(2,\infty)", "2<x", True),
    (r"(2,\infty)", r"(2, +\infty)", True),
    (r"(-\infty, 2) \cup (3, \infty)", "x<2, x>3", True),
    (r"(-\infty, 2) \cup (3, \infty)", r"(3,\infty) \cup (-\infty,2)", True),
    (r"(-\infty, 2) \cup (3, \infty)", r"(-\infty,2] \cup (3,\infty)", False),
    (r"(-\infty, 2) \cup (3, \infty)", r"(-\infty,2)", False),
    ("[0,1]", r"[0,1/2]\cup[1/2,1]", True),
    ("[0,1]", r"[0,1/2)\cup(1/2,1]", False),
    (r"(-\infty,\infty)", r"\mathbb{R}", True),
    (r"(-\infty,\infty)", r"\text{all real numbers}", True),
    ("42", "> 42", False),
    ("42", r"\geq 42", False),
    (r"x \geq 3", r"[3,\infty)", True),
    (r"x \geq 3", r"x \ge 3.0", True),
    (r"x \neq 2", r"x \ne 2", True),
    (r"-1 \le x < 2", "[-1,2)", True),
    ("(3,4]", r"3<x\le 4", True),
    ("(3,4]", "[3,4]", False),
    ("(-1,6)", "-1<x<6", True),
    (r"(0,9) \cup (9,36)", r"(9,36)\cup(0,9)", True),
    (r"x \in [-2,7]", "[-2,7]", True),
    (r"x \in [-2,7]", r"-2\leq x\leq 7", True),
    ("t(0,4]", "(0,4]", True),
    ("t(0,4]", r"0<t\le 4", True),
    (r"k \geqslant 2", r"[2,\infty)", True),
]
NAMES_AND_EQUATIONS = [
    ("y = -2x", "-2x", True),
    ("y = -2x", "x=-y/2", True),
    ("5x - 7y + 11z + 4 = 0", "-5x+7y-11z-4=0", True),
    ("5x - 7y + 11z + 4 = 0", "5x-7y+11z=-4", True),
    ("5x - 7y + 11z + 4 = 0", "5x-7y+11z+4", False),
    ("5x - 7y + 11z + 4 = 0", "5x-7y+11z=4", False),
    ("42", "n = 42", True),
    ("42", "6 × 7 = 42", True),
    ("42", r"6 \times 7 = 41", False),
    ("42", "41 = 42", False),
    ("f(x)=x^2+1", "f(t)=t^2+1", True),
    ("f(x)=x^2+1", "f(x)=x^2-1", False),
    ("f(x)=x^2+1", "g(x)=x^2+1", True),
    ("x=1", "1", True),
    (r"S = \frac{n}{2}", r"\frac{n}{2}", True),
    (r"\frac{n(n+1)}{2}", r"\sum_{k=1}^n k", None),
    ("5", "x=5", True),
    ("y=2x+3", "2x+3", True),
    ("y=2x+3", "2x-y+3=0", True),
    ("y=2x+3", "y=2x-3", False),
    ("x=5", "y=5", False),
    ("f(x)=2 x", "f(n)=2n", True),
    ("f(x)=2x", "2x", True),
    ("f(x)=2x", "3x", False),
    ("120", r"\binom{10}{3}=120", True),
    ("120", "121=120", False),
]
UNITS = [
    (r"\frac{\pi}{2}", r"90^\circ", False),
    (r"(-\infty, 2) \cup (3, \infty)", r"x<2 \text{ or } x>3", True),
    ("12", r"\textbf{(C)}\ 12", True),
    ("42", r"\$42", True),
    ("42", r"42 \text{ ways}", True),
    ("42", r"42 \text{ or } 43", False),
    ("42", r"\text{about } 42", False),
    ("42", r"\text{The answer is } 42", False),
    ("42", r"42 \, \mathrm{cm}^3", True),
    ("f(x)=x^2+1", r"x^2+1 \text{ for all real } x", True),
    (r"25\text{ m/s}", "25 m/s", True),
    (r"25\text{ m/s}", "25", True),
    (r"25\text{ m/s}", r"25 \text{ km/h}", False),
    (r"3 \text{ hours}", r"180 \text{ minutes}", False),
    (r"3 \text{ hours}", "3 h", True),
    (r"90^\circ", "90", True),
    (r"90^\circ", r"\frac{\pi}{2}", False),
    ("1,-2", r"-2 \text{ and } 1", True),
    ("-2,1", r"x=-2 \text{ or } x=1", True),
    (r"\$32,\!348", "32348", True),
    (r"\$32,\!348", r"\$32,348.00", True),
    (r"864 \mbox{ inches}^2", "864", True),
    (r"864 \mbox{ inches}^2", r"864 \text{ in}^2", True),
    (r"864 \mbox{ inches}^2", r"864 \text{ square inches}", True),
    (r"864 \mbox{ inches}^2", r"864 \text{ inches}", False),
    (r"5.4 \text{ cents}", "5.4", True),
    (r"5.4 \text{ cents}", "5.4 dollars", False),
    ("90", r"90^\circ", True),
    (r"90^\circ", r"90 \text{ degrees}", True),
    (r"90^\circ", r"90\text{ cm}", False),
    (r"(-\infty, 0) \cup\{1\}", r"x<0 \text{ or } x=1", True),
    ("5", r"5\text{ or more}", False),
    (r"\frac{270}7\text{ degrees}", "270/7", True),
    (r"\frac{270}7\text{ degrees}", r"\frac{270}{7}^\circ", True),
    ("12", r"12 \text{ cm}", True),
    (r"15\mbox{ cm}^2", "15 cm^2", True),
    (r"15\mbox{ cm}^2", "15 m^2", False),
    (r"\$18.90", "18.9", True),
    (r"\$18.90", "18.90 dollars", True),
    (r"\$18.90", "18.90 cents", False),
]
PERCENT = [
    ("42", r"42\%", True),
    ("0.5", r"50\%", True),
    (r"\frac{1}{3}", r"33.3\%", False),
    (r"\frac{1}{3}", r"33\frac{1}{3}\%", True),
    ("50", r"50\%", True),
    ("0.5", r"0.5\%", False),
    ("62.5%", "5/8", True),
    ("62.5%", "62.5", True),
    ("62.5%", "0.00625", False),
]
BASES = [
    ("1010_2", "1010", True),
    ("1010_2", "10", False),
    ("A5_{16}", "a5_{16}", True),
    ("52_8", "52", True),
    ("52_8", "52_{8}", True),
    ("52_8", "52_9", False),
    ("52_8", "42", False),
]
WORDS = [
    ("5", "five", False),
    (r"\text{No solution}", "no solution", True),
    (r"\text{No solution}", "0", False),
    (r"\emptyset", r"\varnothing", True),
    (r"\emptyset", r"\{\}", True),
    (r"\text{Monday}", "Monday", True),
    (r"\text{Monday}", "Mon", False),
    ("C", r"\text{C}", True),
    ("C", r"\textbf{(C)}", True),
    ("12", "(C)", False),
    (r"\text{(C)}", "C", True),
    (r"\text{(C)}", "(C)", True),
    (r"\text{(C)}", r"\textbf{(C)}\ 12", True),
    (r"\text{(C)}", "D", False),
    (r"\text{Evelyn}", "evelyn", True),
    (r"\text{ellipse}", r"\text{an ellipse}", True),
    (r"\text{even}", "odd", False),
    (r"\text{east}", r"\text{East}", True),
]
AS_MODELS_WRITE = [
    ("5", r"\text{5}", True),
    ("5", r"\textbf{5}", True),
    ("5", r"\mathbf{5}", True),
    ("5", "{5}", True),
    ("5", r"5\\", True),
    ("5", r"5 \text{ }", True),
    ("5", "~5~", True),
    ("5", r"\,5", True),
    ("5", r"5\quad", True),
    ("10", r"\$10.00", True),
    ("0.1", r"10\%", True),
    ("1.5", r"150\%", True),
    ("1/4", r"25\%", True),
    ("25", "0.25", False),
    ("25", "1/4", False),
    ("1000000", "10^6", True),
    ("1000000", "1 million", True),
    ("1", "1 million", False),
    ("10", r"10 \text{ to } 1", False),
    ("2", r"2 \text{ by } 3", False),
    ("1", r"1 \text{ out of } 3", False),
    ("2", r"2 \text{ hours } 1 \text{ minute}", False),
    ("2", r"2 \text{ hours}", True),
    ("2", r"2 \text{ cm}2", True),
    ("2", r"2 \text{ m} \cdot \text{s}^{-1}", True),
    ("2", r"2\text{ million}", False),
    ("2", r"2\text{ dozen}", False),
    ("2500000", r"\$2.5 \text{ million}", True),
    (r"2.5 \text{ million dollars}", "2500000", True),
    (r"2.5 \text{ million dollars}", "2.5", False),
    ("300000", r"3 \text{ hundred thousand people}", True),
    ("2", r"1 \Rightarrow 2", False),
    ("2", r"3 \to 2", False),
    ("2", r"\neg 2", False),
    ("2", r"\setminus 2", False),
    ("2", "/2", False),
    ("2", "*2", False),
    (r"\frac{3}{4}", r"\frac{3}{4} \text{ of the cake}", True),
    ("y = 2x + 3", "y=3+2x", True),
    ("y = 2x + 3", "2x+3=y", True),
    ("y = 2x + 3", "f(x)=2x+3", True),
    ("y = 2x + 3", "y=2x+3, x>0", False),
    ("x^2+y^2=4", "x^2+y^2-4=0", True),
    ("x^2+y^2=4", "x^2+y^2=2", False),
    ("x^2+y^2=4", "2x^2+2y^2=8", True),
    ("x^2+y^2=4", "4", False),
    ("x^2+y^2=4", "r=2", False),
    (r"(2,\infty)", r"x \in (2,\infty)", True),
    (r"(2,\infty)", r"(2,\infty]", True),
    (r"[0,\infty)", r"x \ge 0", True),
    (r"[0,\infty)", r"\{x \mid x \geq 0\}", True),
    (r"[0,\infty)", r"\{x : x \geq 0\}", True),
    (r"[0,\infty)", r"\left\{ x \in \mathbb{R} \mid x \geq 0 \right\}", True),
    (r"(-\infty,0)\cup(0,\infty)", r"x \neq 0", True),
    (r"(-\infty,0)\cup(0,\infty)", r"\mathbb{R} \setminus \{0\}", True),
    (r"(-\infty,0)\cup(0,\infty)", r"\mathbb{R} - \{0\}", True),
    (r"f(x)=\frac{1}{x}", "f(x)=1/x", True),
    (r"f(x)=\frac{1}{x}", "f(x) = x^{-1}", True),
    (r"f(x)=\frac{1}{x}", r"f(x)=\frac{1}{x} \text{ for all } x>0", True),
    (r"f(x)=\frac{1}{x}", r"f(x)=\frac{1}{x} \quad (x>0)", True),
    (r"f(x)=\frac{1}{x}", r"f(x)=\frac{1}{x},\ x>0", True),
    ("k=2n-1", "2n-1", True),
    ("k=2n-1", r"2n - 1 \text{ cards}", True),
    (r"\binom{2n}{n}", r"\dbinom{2n}{n}", True),
    (r"\binom{2n}{n}", "C(2n,n)", False),
    (r"\binom{2n}{n}", r"\binom{2n}{n-1}", False),
    ("2^{1009}", "2^{1009}", True),
    ("n(n-1)", "n^2-n", True),
    ("(n-2) 2^{n}+1", "2^n(n-2)+1", True),
    (r"\frac{100!}{2^{50}}", "100!/2^{50}", True),
    (r"4^{\circ}", "4", True),
    (r"18.8^{\circ}", "18.8", True),
    (r"18.8^{\circ}", "19", False),
    (r"$(45^{\circ}, 60^{\circ})$", "(45,60)", True),
    (r"\sqrt{2}-1", r"\sqrt2 - 1", True),
    (r"\sqrt{2}-1", r"-1+\sqrt{2}", True),
    (r"\frac{1}{2}+\frac{\sqrt{3}}{2}i", r"e^{i\pi/3}", True),
    (r"\frac{1}{2}+\frac{\sqrt{3}}{2}i", r"\cos 60^\circ + i \sin 60^\circ", True),
    (r"\frac{\log 2}{\log 2-\log 3}", r"\frac{\ln 2}{\ln 2 - \ln 3}", True),
    (r"(4, \log _{10} 2)", r"(4,\lg 2)", True),
    (r"\text{Yes}", "yes", True),
    (r"\text{Yes}", r"\text{No}", False),
    (r"\text{odd}", "odd", True),
    (r"\text{June 20}", "June 20", True),
    (r"\text{3:30 pm}", r"3:30 \text{ p.m.}", True),
    ("16", r"16\text{ square units}", True),
    ("90", r"90\text{ degrees}", True),
    ("7", r"\text{Seven}", False),
    ("12", r"12\text{ (twelve)}", True),
    ("1", r"\frac{n}{n}", True),
    ("x", "x+0", True),
    ("x", "y", False),
    ("3", "3.0000000001", False),
    ("3", "2.9999999", False),
    (r"\pi", "3.14159265358979323846", False),
    ("-1", "i^2", True),
    ("6-5i", r"6-5\mathrm{i}", True),
    ("6-5i", "6 - 5j", False),
    (r"11\sqrt2", r"11\sqrt{2}", True),
    ("p-q", "p-q=0", False),
    ("3R^2", "3r^2", False),
    ("2k+2", "2(k+1)", True),
    (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\pi/2)", True),
    (r"\left( 3, \frac{\pi}{2} \right)", r"(r,\theta) = (3,\frac{\pi}{2})", True),
    (r"\left( 3, \frac{\pi}{2} \right)", r"(3,90^\circ)", False),
    (r"\{1\pm\sqrt{5},-2\}", r"-2, 1\pm\sqrt{5}", True),
    (r"\{1\pm\sqrt{5},-2\}", r"x=-2, x=1\pm\sqrt5", True),
    (r"3 \pm 2 \sqrt{2}", r"3+2\sqrt{2}, 3-2\sqrt{2}", True),
    (r"3 \pm 2 \sqrt{2}", r"3 \pm \sqrt{8}", True),
    (r"3 \pm 2 \sqrt{2}", r"3 \mp 2\sqrt2", True),
    (r"x \in [-2,7]", r"-2 \le x \le 7", True),
    (
        r"\begin{pmatrix} -2 \\ -14 \\ -7 \end{pmatrix}",
        r"\begin{pmatrix} -2 \\ -14 \\ 7 \end{pmatrix}",
        False,
    ),
    (r"\begin{pmatrix} -2 \\ -14 \\ -7 \end{pmatrix}", r"\langle -2,-14,-7\rangle", True),
    (
        r"\begin{pmatrix} -2 \\ -14 \\ -7 \end{pmatrix}",
        r"-2\mathbf{i}-14\mathbf{j}-7\mathbf{k}",
        False,
    ),
    (
        r"\begin{pmatrix} -2 \\ -14 \\ -7 \end{pmatrix}",
        r"\mathbf{v}=\begin{pmatrix} -2 \\ -14 \\ -7 \end{pmatrix}",
        True,
    ),
]
MATRICES = [
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 & 2 \end{pmatrix}", False),
    (
        r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
        r"\begin{bmatrix}1&2\\3&4\end{bmatrix}",
        True,
    ),
    (
        r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
        r"\begin{bmatrix}1&2\\3&5\end{bmatrix}",
        False,
    ),
    (
        r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
        r"\begin{vmatrix}1&2\\3&4\end{vmatrix}",
        False,
    ),
    (
        r"\begin{pmatrix} -1/3 \\ 2/3 \\ 5/3 \end{pmatrix}",
        r"\begin{bmatrix} -\frac13 \\ \frac23 \\ \frac53 \end{bmatrix}",
        True,
    ),
    (r"\begin{pmatrix} -1/3 \\ 2/3 \\ 5/3 \end{pmatrix}", "(-1/3,2/3,5/3)", True),
    (
        r"\begin{pmatrix} -1 & 0 \\ 0 & -1 \end{pmatrix}",
        r"\begin{pmatrix} -1 & 0 \\ 0 & 1 \end{pmatrix}",
        False,
    ),
]


@pytest.mark.parametrize(("gold", "predicted", "equal"), NUMBERS)
def test_numbers_are_compared_exactly(gold: str, predicted: str, equal: bool) -> None:
    assert settle_by_text(gold, predicted) is equal


@pytest.mark.parametrize(("gold", "predicted", "equal"), EXPRESSIONS)
def test_expressions_are_compared_by_value(gold: str, predicted: str, equal: bool) -> None:
    assert settle_by_text(gold, predicted) is equal


@pytest.mark.parametrize(("gold", "predicted", "equal"), SEVERAL)
def test_several_answers_are_a_set(gold: str, predicted: str, equal: bool) -> None:
    assert settle_by_text(gold, predicted) is equal


@pytest.mark.parametrize(("gold", "predicted", "equal"), TUPLES)
def test_the_order_in_a_tuple_counts(gold: str, predicted: str, equal: bool) -> None:
    assert settle_by_text(gold, predicted) is equal


@pytest.mark.parametrize(("gold", "predicted", "equal"), REGIONS)
def test_intervals_unions_and_inequalities_are_regions(
    gold: str, predicted: str, equal: bool
) -> None:
    assert settle_by_text(gold, predicted) is equal


@pytest.mark.parametrize(("gold", "predicted", "equal"), NAMES_AND_EQUATIONS)
def test_a_name_may_be_left_out_and_an_equation_rearranged(
    gold: str, predicted: str, equal: bool
) -> None:
    assert settle_by_text(gold, predicted) is equal


@pytest.mark.parametrize(("gold", "predicted", "equal"), UNITS)
def test_a_unit_may_be_left_out_but_not_be_another(gold: str, predicted: str, equal: bool) -> None:
    assert settle_by_text(gold, predicted) is equal


@pytest.mark.parametrize(("gold", "predicted", "equal"), PERCENT)
def test_the_gold_answer_decides_about_percent(gold: str, predicted: str, equal: bool) -> None:
    assert settle_by_text(gold, predicted) is equal


@pytest.mark.parametrize(("gold", "predicted", "equal"), BASES)
def test_a_base_may_be_left_out_but_not_be_another(gold: str, predicted: str, equal: bool) -> None:
    assert settle_by_text(gold, predicted) is equal


@pytest.mark.parametrize(("gold", "predicted", "equal"), WORDS)
def test_words_and_choices_are_compared_as_text(gold: str, predicted: str, equal: bool) -> None:
    assert settle_by_text(gold, predicted) is equal


@pytest.mark.parametrize(("gold", "predicted", "equal"), AS_MODELS_WRITE)
def test_what_models_write_around_an_answer_changes_nothing(
    gold: str, predicted: str, equal: bool
) -> None:
    assert settle_by_text(gold, predicted) is equal


@pytest.mark.parametrize(("gold", "predicted", "equal"), MATRICES)
def test_matrices_are_compared_entry_by_entry(gold: str, predicted: str, equal: bool) -> None:
    assert settle_by_text(gold, predicted) is equal


def read_documented() -> list[tuple[str, str, bool]]:
    """Gold answers with right and wrong ones, from the table of the documentation."""
    guide = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    text = guide.split("\n## Grading maths\n")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return [
        (re.findall("`([^`]*)`", gold)[0], answer, equal)
        for gold, right, wrong, _ in rows
        for cell, equal in ((right, True), (wrong, False))
        for answer in re.findall("`([^`]*)`", cell)
    ]


def test_the_documented_examples_hold() -> None:
    examples = read_documented()
    assert len(examples) > 80
    assert [row for row in examples if settle_by_text(row[0], row[1]) is not row[2]] == []


def several(*parts: str) -> MathGold:
    return MathGold(text=", ".join(parts), parts=parts)


RATE = MathGold(text="4.2", unit="%", tolerance=0.1)
SPEED = MathGold(text=r"\frac{600}{7}", unit="km/h")


@pytest.mark.parametrize(
    ("gold", "predicted", "equal"),
    [
        (several("1", "3", "5"), "5, 3, 1", True),
        (several("1", "3", "5"), "5, 3", False),
        (several("1", "3", "5"), "5, 3, 1, 7", False),
        (several("1", "3"), "(1,3)", False),
        (several("1", "3", "5"), "[5, 1, 3]", True),
        (several("1", "3"), "[1, 3]", False),
        (several("100", "200"), "100,200", True),
        (several("1,000", "2,000"), r"1,000 \text{ and } 2,000", True),
        (several("16", "3", "1", "1"), "1, 16, 1, 3", True),
        (several("16", "3", "1", "1"), "16, 3, 3, 1", False),
        (several("16", "3", "1", "1"), "16, 3, 1", True),
        (several("f(x)=x", "f(x)=2-x"), r"f(x) = 2 - x \text{ or } f(x) = x", True),
        (several("f(x)=x", "f(x)=2-x"), "2-x, x", True),
        (several("5", "1"), r"\text{maximum: } 5, \text{minimum: } 1", True),
        (several("(1,1)", "(3,2)"), "(3,2), (1,1)", True),
        (several("(1,1)", "(3,2)"), "(2,3), (1,1)", False),
        (several("x = 2k", "x = 2k+1"), r"x = 2k, 2k+1, k \in \mathbb{Z}", True),
        (several("1", "3"), "x=1, x=3", True),
        (several("1", "3"), "x_1 = 1, x_2 = 3", True),
        (several("1", "3"), r"x \in \{1,3\}", True),
        (several("1", "3"), r"1 \text{ and } 3", True),
        (several("1", "3"), r"1\quad\text{or}\quad 3", True),
        (several("1", "3"), r"\{1\}, \{3\}", True),
        (several("1", "3"), "1 3", False),
        (several("1", "3"), r"1, 3, \ldots", False),
        (several("1", "3"), r"n = 1 \text{ or } n = 3", True),
        (several("1", "3"), "p=1,q=3", True),
        (several("(1,1)", "(3,2)"), "(x,y)=(1,1),(3,2)", True),
        (several("(1,1)", "(3,2)"), r"\{(1,1),(3,2)\}", True),
        (several("(1,1)", "(3,2)"), r"(1,1) \text{ and } (3,2)", True),
        (several("(1,1)", "(3,2)"), r"x=1,y=1 \text{ or } x=3,y=2", False),
        (several("f(x)=-1", "f(x)=x+1"), r"f(x)=-1 \text{ and } f(x)=x+1", True),
        (several("f(x)=-1", "f(x)=x+1"), r"f(x) \equiv -1, f(x)=x+1", True),
        (several("f(x)=-1", "f(x)=x+1"), "f(n)=-1,f(n)=n+1", True),
        (RATE, "4.16", True),
        (RATE, "4.31", False),
        (RATE, r"4.2\%", True),
        (RATE, "0.0416", True),
        (RATE, "0.044", False),
        (RATE, r"\sqrt{18}", True),
        (SPEED, "600/7", True),
        (SPEED, r"\frac{600}{7}\text{ km per hour}", True),
        (SPEED, r"\frac{600}{7} km/h", True),
        (SPEED, r"\frac{600}{7}\text{ m/s}", False),
        (MathGold(text="45", unit="minute"), "45 min", True),
        (MathGold(text="45", unit="minute"), "45 s", False),
        (MathGold(text="166", unit="$cm^2$"), "166 cm^2", True),
        (MathGold(text="73", kind="integer"), "073", True),
    ],
)
def test_what_the_item_says_about_its_answer_counts(
    gold: MathGold, predicted: str, equal: bool
) -> None:
    assert settle_by_text(gold, predicted) is equal


@pytest.mark.parametrize(
    ("text", "gold", "found"),
    [
        (r"$\boxed{1}$ and $\boxed{3}$", several("1", "3"), "1, 3"),
        (r"x = \boxed{1} or x = \boxed{3}", several("1", "3"), "1, 3"),
        (r"one root is \boxed{1}; the other root is \boxed{3}", several("1", "3"), "1, 3"),
        (r"first \boxed{7}." + " so" * 60 + r" \boxed{1, 3}", several("1", "3"), "1, 3"),
        (r"\boxed{(1,1)} and \boxed{(3,2)}", several("(1,1)", "(3,2)"), "(1,1), (3,2)"),
        (r"\boxed{3} or \boxed{5}", MathGold(text="5"), "3, 5"),
        (r"first \boxed{3}. Then \boxed{5}", MathGold(text="5"), "5"),
        (r"\boxed{5}, \boxed{5}", MathGold(text="5"), "5"),
        (r"\boxed{5} \boxed{}", MathGold(text="5"), None),
        (r"\fbox{5}", MathGold(text="5"), "5"),
        (r"\boxed {5}", MathGold(text="5"), "5"),
        ("The answer is 5.", MathGold(text="5"), None),
    ],
)
def test_boxes_that_continue_each_other_are_one_answer(
    text: str, gold: MathGold, found: str | None
) -> None:
    assert extract_answer(text, gold) == found


def fill(piece: str) -> str:
    return (piece * 2000)[:2000]


@pytest.mark.parametrize(
    "piece",
    [
        *("x+", r"\sqrt", "2^", "x^x^", "|x|", "1,", "'", r"\text{", r"\begin{pmatrix}", "x=", "!"),
        *(r"x\in", r"\pm 1", r"(0,1)\cup", "x<", "9", "1.1", "1,000", r"1\,000", "5 m ", "5%"),
        *(
            "x_{",
            "²",
            "1 2/3 ",
            "-",
            "1^\\circ ",
            r"\frac",
            r"\frac12",
            "{",
            "(",
            r"0.\overline{3}",
        ),
        *(
            r"\ln{2^{9999}}+",
            r"\sin{2^{9999}},",
            r"(1,2,\ln{2^{9999}}),",
            "1.0000001^{99999999999}+",
        ),
        *(r"(2^{9999})^{0.3}+", r"\binom{2000}{1000}+", "2000!+", "10^{4900}+", "1e9999+"),
    ],
)
@pytest.mark.parametrize("gold", ["5/2", r"x^2+\sqrt{y}", r"(0,1) \cup (2,3)", "y=2x+1"])
def test_no_answer_of_the_allowed_length_is_costly_or_right_by_accident(
    gold: str, piece: str
) -> None:
    assert settle_by_text(gold, fill(piece)) is not True


@example("0$.<")
@given(
    st.text(alphabet="0123456789abcx+-*/^_{}()[]\\,;=<>%$!|.' \\frac\\sqrt\\text\\pm", max_size=40)
)
def test_any_text_gets_a_verdict_and_equals_itself_or_nothing(text: str) -> None:
    assert settle_by_text("5/2", text) in {True, False, None}
    assert settle_by_text(text, "5/2") in {True, False, None}
    assert normalise_answer(normalise_answer(text)) == normalise_answer(text)


@pytest.mark.parametrize("letters", ["x", "a", "n", "ab", "xy", "abc", "pqr"])
def test_signs_count_whatever_variables_are_called(letters: str) -> None:
    assert settle_by_text(letters, f"|{letters}|") is False
    assert settle_by_text(f"(-1)^{letters[0]}", "1") is False
    assert settle_by_text(rf"\lfloor {letters[0]}/2 \rfloor", f"{letters[0]}/2") is False


@given(st.fractions(), st.integers(1, 50))
def test_a_fraction_equals_its_multiples_and_nothing_near(value: object, factor: int) -> None:
    above, below = value.numerator, value.denominator  # type: ignore[attr-defined]
    same = rf"\frac{{{above * factor}}}{{{below * factor}}}"
    assert settle_by_text(f"{above}/{below}", same) is True
    assert settle_by_text(f"{above}/{below}", rf"{same} + 10^{{-40}}") is False


def load_module() -> ModuleType:
    """The benchmark script beside the packages."""
    folder = str(ROOT / "benchmarks" / "evaluation")
    sys.path.insert(0, folder)
    try:
        return import_module("math_grading")
    finally:
        sys.path.remove(folder)


def test_every_gold_answer_equals_itself(shared_data: Path) -> None:
    golds = load_module().load_golds(shared_data / "benchmarks")
    counts = {name: len(found) for name, found in golds.items()}
    sizes = {"math500": 500, "aime24": 30, "aime25": 30, "olympiadbench": 675, "gsm8k": 1319}
    assert counts == sizes
    for name, found in golds.items():
        wrong = [gold.text for gold in found if settle_by_text(gold, gold.text) is not True]
        assert not wrong, name


@pytest.mark.slow
def test_rewritings_of_gold_answers_are_right_and_near_misses_wrong(shared_data: Path) -> None:
    module = load_module()
    with MathGrader(num_workers=2) as grader:
        for name, found in module.load_golds(shared_data / "benchmarks").items():
            for case in module.make_cases(name, found[::4]):
                verdicts = grader.grade(case.pairs)
                wrong = [p for p, v in zip(case.pairs, verdicts, strict=True) if v != case.equal]
                assert not wrong, (name, case.kind)
