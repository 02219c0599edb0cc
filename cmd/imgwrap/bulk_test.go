package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgwrap/imgwrap/image"
)

func journaled(source string) (*image.BulkItem, image.BulkResult) {
	return &image.BulkItem{Source: source, Key: "k", Options: &image.Options{Version: "1"}},
		image.BulkResult{Source: source, State: image.BulkWrapped, SourceDigest: "sha256:a", Digest: "sha256:b", Warnings: []string{}}
}

// TestJournalCut has a journal go on behind a line that a killed process has begun.
func TestJournalCut(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state")
	write := func(source string) {
		j, err := openJournal(file)
		if err != nil {
			t.Fatal(err)
		}
		item, r := journaled(source)
		if err := j.add(item, r); err != nil {
			t.Fatal(err)
		}
		if err := j.close(); err != nil {
			t.Fatal(err)
		}
	}
	write("a")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range whole {
		if err := os.WriteFile(file, whole[:cut], 0o644); err != nil {
			t.Fatal(err)
		}
		write("b")
		j, err := openJournal(file)
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		for source, want := range map[string]bool{"a": cut == len(whole)-1, "b": true} {
			item, _ := journaled(source)
			if _, known := j.known(item); known != want {
				t.Errorf("cut at %d of %d: %s is known: %v", cut, len(whole), source, known)
			}
		}
		if err := j.close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestJournalKnown(t *testing.T) {
	for state, want := range map[image.BulkState]bool{
		image.BulkWrapped: true, image.BulkCurrent: true, image.BulkSkipped: true, image.BulkRefused: false, image.BulkFailed: false,
	} {
		j, err := openJournal(filepath.Join(t.TempDir(), "state"))
		if err != nil {
			t.Fatal(err)
		}
		item, r := journaled("a")
		r.State = state
		if err := j.add(item, r); err != nil {
			t.Fatal(err)
		}
		if err := j.close(); err != nil {
			t.Fatal(err)
		}
		if j, err = openJournal(j.name); err != nil {
			t.Fatal(err)
		}
		if got, known := j.known(item); known != want || got.State != state {
			t.Errorf("%s: known %v, as %s", state, known, got.State)
		}
		other := *item
		for _, change := range []func(){
			func() { other.Source = "b" },
			func() { other.Key = "l" },
			func() { other.Options = &image.Options{Version: "2"} },
		} {
			other = *item
			change()
			if _, known := j.known(&other); known {
				t.Errorf("%+v is taken for another one", other)
			}
		}
		if err := j.close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBulkReports(t *testing.T) {
	r := &image.BulkReport{Counts: map[image.BulkState]int{image.BulkWrapped: markdownRows + 2, image.BulkFailed: 1, image.BulkNotStarted: 1}}
	r.Images = []image.BulkResult{
		{Source: "r/a:1", State: image.BulkFailed, Reason: "<no> | such\nimage", Hint: "log in"},
		{Source: "r/b:1", State: image.BulkNotStarted},
	}
	for i := range markdownRows + 2 {
		r.Images = append(r.Images, image.BulkResult{Source: fmt.Sprintf("r/c:%d", i), State: image.BulkWrapped, Image: fmt.Sprintf("r/c:%d-otel", i), Digest: "sha256:d", Warnings: []string{"it is *old*"}})
	}
	var b, whole bytes.Buffer
	if err := errors.Join(bulkDocument{r}.writeJSON(&b), writeJSON(&whole, r)); err != nil {
		t.Fatal(err)
	}
	if b.String() != whole.String() {
		t.Errorf("image by image, it is\n%.2000s\nat once\n%.2000s", b.String(), whole.String())
	}
	b.Reset()
	if err := markdownBulk(&b, r); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"\n504 images: 502 wrapped, 1 failed, 1 not-started; 0 B of layers read, 0 B uploaded.\n",
		"\n| failed | `r/a:1` | \\<no\\> \\| such image | log in |\n",
		"\n- r/c:0 and 501 more: it is \\*old\\*\n",
		"\n| wrapped | `r/c:499` | `r/c:499-otel` | `sha256:d` |  |\n\n… and 2 more; a report in JSON has all.\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in\n%.2000s", want, b.String())
		}
	}
	b.Reset()
	if err := writeJUnit(&b, "bulk", bulkCases(r)); err != nil {
		t.Fatal(err)
	}
	var suite testSuite
	if err := xml.Unmarshal(b.Bytes(), &suite); err != nil {
		t.Fatal(err)
	}
	if suite.Tests != len(r.Images) || suite.Errors != 1 || suite.Skipped != 1 || suite.Failures != 0 {
		t.Errorf("%d tests, %d errors, %d failures, %d skipped", suite.Tests, suite.Errors, suite.Failures, suite.Skipped)
	}
	if c := suite.Cases[0]; c.Error == nil || c.Error.Message != r.Images[0].Reason || c.Error.Text != "log in" {
		t.Errorf("%+v", c.Error)
	}
	if got, want := suite.Cases[2].Output, "it is *old*"; got != want {
		t.Errorf("output %q, want %q", got, want)
	}
}
