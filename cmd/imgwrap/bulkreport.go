package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/imgwrap/imgwrap/image"
)

// bulkWatch says how a bulk goes on: with a bar on a terminal, else with a line for
// each image.
type bulkWatch struct {
	app     *app
	bar     *imagesBar // nil if there is none
	all     int
	results int
}

// watchBulk begins to watch a bulk of so many images.
func (a *app) watchBulk(w *image.Wrapper, images int) *bulkWatch {
	watch := &bulkWatch{app: a, all: images}
	if b, ok := w.Progress.(*bars); ok {
		watch.bar = b.images(images)
		a.log.SetOutput(b)
	}
	return watch
}

// done is told of each image that has ended, one at a time.
func (b *bulkWatch) done(r image.BulkResult) {
	b.results++
	log := b.app.log
	if b.bar != nil {
		b.bar.done(r.Problem())
	}
	where := fmt.Sprintf("[%d/%d] %s: ", b.results, b.all, r.Source)
	switch {
	case r.Problem():
		log.Error(where + string(r.State) + ": " + r.Reason)
	case b.bar != nil: // it shows
	case r.Wrapped(), r.State == image.BulkWouldWrap:
		log.Infof("%s%s, %s@%s", where, r.State, r.Image, r.Digest)
	default:
		log.Infof("%s%s: %s", where, r.State, r.Reason)
	}
}

// end gives standard error back.
func (b *bulkWatch) end() {
	if b.bar != nil {
		b.bar.end()
		b.app.log.SetOutput(b.app.err)
	}
}

// bulkDocument is a report as JSON, image by image: all at once would be several
// times in memory.
type bulkDocument struct{ *image.BulkReport }

func (d bulkDocument) writeJSON(w io.Writer) error {
	counts, err := json.MarshalIndent(d.Counts, "  ", "  ")
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "{\n  \"version\": %d,\n  \"counts\": %s,\n  \"images\": [", d.Version, counts); err != nil {
		return err
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("    ", "  ")
	separator, end := "\n    ", ""
	for _, im := range d.Images {
		b.Reset()
		if err := e.Encode(im); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "%s%s", separator, bytes.TrimSpace(b.Bytes())); err != nil {
			return err
		}
		separator, end = ",\n    ", "\n  "
	}
	_, err = io.WriteString(w, end+"]\n}\n")
	return err
}

// bulkStates are all states, in the order in which they are told.
var bulkStates = []image.BulkState{
	image.BulkWrapped, image.BulkWouldWrap, image.BulkCurrent, image.BulkSkipped,
	image.BulkRefused, image.BulkFailed, image.BulkNotStarted,
}

// bulkSummary is the outcome in one line.
func bulkSummary(r *image.BulkReport) string {
	var parts []string
	for _, s := range bulkStates {
		if n := r.Counts[s]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, s))
		}
	}
	var read, uploaded int64
	for _, im := range r.Images {
		read += im.Read.Bytes
		uploaded += im.Uploaded.Bytes
	}
	return fmt.Sprintf("%d images: %s; %s of layers read, %s uploaded", len(r.Images), cmp.Or(strings.Join(parts, ", "), "nothing to do"), size(read), size(uploaded))
}

// writeWrapped writes a line for each image that is wrapped.
func writeWrapped(w io.Writer, r *image.BulkReport) error {
	for _, im := range r.Images {
		if im.Wrapped() {
			if _, err := fmt.Fprintln(w, im.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeBulk writes the outcome as a table for people.
func writeBulk(w io.Writer, r *image.BulkReport) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, im := range r.Images {
		what := im.Reason
		if im.Image != "" {
			what = strings.Join(nonEmpty(im.Image, short(im.Digest), im.Release), " ")
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", im.State, im.Source, size(im.Read.Bytes), size(im.Uploaded.Bytes), what)
	}
	fmt.Fprintln(t)
	if err := t.Flush(); err != nil {
		return err
	}
	for _, line := range bulkWarnings(r) {
		if _, err := fmt.Fprintf(w, "warning: %s\n", line); err != nil {
			return err
		}
	}
	for _, line := range bulkHints(r) {
		if _, err := fmt.Fprintf(w, "hint: %s\n", line); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(w, bulkSummary(r))
	return err
}

// bulkWarnings are the warnings about all images, each once.
func bulkWarnings(r *image.BulkReport) []string {
	return eachOnce(r, func(im *image.BulkResult) []string { return im.Warnings })
}

// bulkHints say what to do about images that could not be wrapped, each once.
func bulkHints(r *image.BulkReport) []string {
	return eachOnce(r, func(im *image.BulkResult) []string {
		if !im.Problem() {
			return nil
		}
		return nonEmpty(im.Hint)
	})
}

// eachOnce are texts about images, sorted, with the first image that each is about.
func eachOnce(r *image.BulkReport, texts func(*image.BulkResult) []string) []string {
	first, more := map[string]string{}, map[string]int{} // by text
	for i := range r.Images {
		im := &r.Images[i]
		for _, text := range texts(im) {
			if _, ok := first[text]; ok {
				more[text]++
			} else {
				first[text] = im.Source
			}
		}
	}
	var lines []string
	for _, text := range slices.Sorted(maps.Keys(first)) {
		images := first[text]
		if n := more[text]; n > 0 {
			images += fmt.Sprintf(" and %d more", n)
		}
		lines = append(lines, images+": "+text)
	}
	return lines
}

// markdownRows is how many rows a table of images has at most: job summaries may
// have a megabyte.
const markdownRows = 500

// markdownBulk writes the outcome, what asks for something first.
func markdownBulk(w io.Writer, r *image.BulkReport) error {
	if _, err := fmt.Fprintf(w, "### OpenTelemetry for %d images\n\n%s.\n\n", len(r.Images), inline(bulkSummary(r))); err != nil {
		return err
	}
	var problems, rest [][]string
	for _, im := range r.Images {
		switch {
		case im.Wrapped() || im.State == image.BulkWouldWrap:
			rest = append(rest, []string{string(im.State), code(im.Source), code(im.Image), code(im.Digest), inline(im.Release)})
		default:
			problems = append(problems, []string{string(im.State), code(im.Source), inline(im.Reason), inline(im.Hint)})
		}
	}
	if len(problems) > 0 {
		if err := markdownFirst(w, []string{"", "Image", "Why", "What to do"}, problems); err != nil {
			return err
		}
	}
	if err := markdownList(w, "Warnings", bulkWarnings(r)); err != nil {
		return err
	}
	if len(rest) == 0 {
		return nil
	}
	if _, err := fmt.Fprintf(w, "<details><summary>Wrapped images</summary>\n\n"); err != nil {
		return err
	}
	if err := markdownFirst(w, []string{"", "Source", "Wrapped image", "Digest", "OpenTelemetry"}, rest); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "</details>\n")
	return err
}

// markdownFirst writes a table of the first of many rows.
func markdownFirst(w io.Writer, head []string, rows [][]string) error {
	more := len(rows) - markdownRows
	if err := markdownTable(w, head, rows[:min(len(rows), markdownRows)]); err != nil || more <= 0 {
		return err
	}
	_, err := fmt.Fprintf(w, "… and %d more; a report in JSON has all.\n\n", more)
	return err
}

// bulkCases are the images as the cases of a test suite.
func bulkCases(r *image.BulkReport) []testCase {
	cases := make([]testCase, len(r.Images))
	for i, im := range r.Images {
		c := testCase{Class: "imgwrap", Name: im.Source, Time: seconds(im.Seconds)}
		problem := &testProblem{Message: im.Reason, Type: string(im.State), Text: im.Hint}
		switch im.State {
		case image.BulkRefused:
			c.Failure = problem
		case image.BulkFailed:
			c.Error = problem
		case image.BulkSkipped, image.BulkNotStarted:
			c.Skipped = problem
		}
		c.Output = lines(append([]string{im.Name, im.Release}, im.Warnings...)...)
		cases[i] = c
	}
	return cases
}
