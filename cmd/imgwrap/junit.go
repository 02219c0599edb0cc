package main

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
)

// testSuite is a report as test frameworks write it, which CI systems show: that
// of Ant's JUnit task, as far as Jenkins and GitLab read it
// (https://github.com/testmoapp/junitxml).
type testSuite struct {
	XMLName  xml.Name   `xml:"testsuite"`
	Name     string     `xml:"name,attr"`
	Tests    int        `xml:"tests,attr"`
	Failures int        `xml:"failures,attr"`
	Errors   int        `xml:"errors,attr"`
	Skipped  int        `xml:"skipped,attr"`
	Time     seconds    `xml:"time,attr"`
	Cases    []testCase `xml:"testcase"`
}

type testCase struct {
	Class   string       `xml:"classname,attr"` // groups cases
	Name    string       `xml:"name,attr"`
	Time    seconds      `xml:"time,attr"`
	Failure *testProblem `xml:"failure"` // a check did not hold
	Error   *testProblem `xml:"error"`   // there was no checking it
	Skipped *testProblem `xml:"skipped"`
	Output  string       `xml:"system-out,omitempty"`
}

type testProblem struct {
	Message string `xml:"message,attr"`
	Type    string `xml:"type,attr,omitempty"`
	Text    string `xml:",chardata"`
}

type seconds float64

func (s seconds) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%.3f", float64(s)), nil }

// writeJUnit writes a suite of cases, which it counts.
func writeJUnit(w io.Writer, name string, cases []testCase) error {
	suite := testSuite{Name: name, Tests: len(cases), Cases: cases}
	for _, c := range cases {
		switch {
		case c.Failure != nil:
			suite.Failures++
		case c.Error != nil:
			suite.Errors++
		case c.Skipped != nil:
			suite.Skipped++
		}
		suite.Time += c.Time
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(suite); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

// lines joins texts, without those that are empty.
func lines(texts ...string) string { return strings.Join(nonEmpty(texts...), "\n") }
