package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/imgwrap/imgwrap/image"
)

// Markdown is written as GitHub reads it
// (https://github.github.com/gfm/), which others read as well.

// inline is text as Markdown shows it unchanged, in a paragraph or in the cell
// of a table.
func inline(text string) string {
	var b strings.Builder
	for _, r := range strings.Join(strings.Fields(text), " ") {
		if strings.ContainsRune("\\`*_[]<>|~&#", r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// code is text in Markdown's code style, "" if it is empty. What would end it
// becomes something that looks alike.
func code(text string) string {
	if text == "" {
		return ""
	}
	return "`" + strings.NewReplacer("`", "'", "|", "\\|", "\n", " ").Replace(text) + "`"
}

// markdownTable writes a table. Its cells are Markdown.
func markdownTable(w io.Writer, head []string, rows [][]string) error {
	dashes := make([]string, len(head))
	for i := range dashes {
		dashes[i] = "---"
	}
	for _, row := range append([][]string{head, dashes}, rows...) {
		if _, err := fmt.Fprintf(w, "| %s |\n", strings.Join(row, " | ")); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(w)
	return err
}

// markdownList writes lines of text as a list below a title, if there are any.
func markdownList(w io.Writer, title string, lines []string) error {
	if len(lines) == 0 {
		return nil
	}
	if _, err := fmt.Fprintf(w, "**%s**\n\n", title); err != nil {
		return err
	}
	for _, line := range lines {
		if _, err := fmt.Fprintf(w, "- %s\n", inline(line)); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(w)
	return err
}

// markdownReport writes what a wrapping did.
func markdownReport(w io.Writer, r *image.Report) error {
	pushed := traffic(r.Push)
	if r.Push.UpToDate {
		pushed = "already up to date"
	}
	return markdownWrapping(w, r.Plan, []string{"Pushed", inline(pushed)})
}

// markdownPlan writes what a wrapping would do.
func markdownPlan(w io.Writer, p *image.Plan) error { return markdownWrapping(w, p) }

// markdownWrapping writes what people look at first: which image, and what it
// got. more are rows about the image as a whole.
func markdownWrapping(w io.Writer, p *image.Plan, more ...[]string) error {
	rows := [][]string{
		{"Source", code(p.Source)},
		{"Source digest", code(p.SourceDigest)},
		{"Wrapped image", code(p.Image)},
		{"Digest", code(p.Digest)},
	}
	if p.Digest == "" {
		rows[2], rows[3] = []string{"Wrapped image", "none: it cannot be wrapped as it is"}, []string{"", ""}
		rows = rows[:3]
	}
	images := p.Images()
	if p.Index == nil {
		rows = append(rows, markdownImage(images[0])...)
	}
	if _, err := fmt.Fprintf(w, "### OpenTelemetry for %s\n\n", code(p.Source)); err != nil {
		return err
	}
	if err := markdownTable(w, []string{"", ""}, append(rows, more...)); err != nil {
		return err
	}
	if p.Index != nil {
		if err := markdownIndex(w, p.Index); err != nil {
			return err
		}
	}
	var warnings []string
	for _, im := range images {
		for _, text := range im.Warnings {
			if p.Index != nil {
				text = im.Platform + ": " + text
			}
			warnings = append(warnings, text)
		}
	}
	if p.Index != nil {
		warnings = append(warnings, p.Index.Warnings...)
	}
	for _, d := range p.Dropped {
		warnings = append(warnings, "dropped: "+d)
	}
	return markdownList(w, "Warnings", warnings)
}

// markdownImage is what a table says of the image of one platform.
func markdownImage(p *image.ImagePlan) [][]string {
	rows := [][]string{{"Python", inline(p.Interpreter.Version) + " at " + code(p.Interpreter.Path)}}
	if p.Release.Version != "" {
		rows = append(rows,
			[]string{"OpenTelemetry", inline(p.Release.Version + "/" + p.Release.Contrib)},
			[]string{"Instrumentations", inline(instrumentations(p))})
	}
	return rows
}

func markdownIndex(w io.Writer, p *image.IndexPlan) error {
	var rows [][]string
	for _, im := range p.Images {
		row := []string{inline(im.Platform), code(im.Digest)}
		for _, cells := range markdownImage(im.ImagePlan) {
			row = append(row, cells[1])
		}
		rows = append(rows, append(row, "", "")[:5])
	}
	for _, k := range p.Kept {
		rows = append(rows, []string{inline(k.Name), "not changed: " + inline(k.Reason), "", "", ""})
	}
	return markdownTable(w, []string{"Platform", "Digest", "Python", "OpenTelemetry", "Instrumentations"}, rows)
}

func instrumentations(p *image.ImagePlan) string {
	var names []string
	for _, i := range p.Instrumentations {
		names = append(names, i.Name)
	}
	return strings.Join(names, ", ")
}
