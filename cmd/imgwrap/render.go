package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/imgwrap/imgwrap/image"
)

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// size prints bytes for people.
func size(n int64) string {
	switch {
	case n < 1000:
		return fmt.Sprintf("%d B", n)
	case n < 1_000_000:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}

// short abbreviates a digest for tables.
func short(digest string) string {
	_, hex, ok := strings.Cut(digest, ":")
	if !ok || len(hex) < 12 {
		return digest
	}
	return hex[:12]
}

// writePlan prints a plan for people: what is there, what is added, and why.
func writePlan(w io.Writer, p *image.Plan) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(cells ...string) { fmt.Fprintln(t, strings.Join(cells, "\t")) }

	row("image", p.Source)
	if p.Wrapped {
		row("", "wrapped before: what is wrapped is its source,")
	}
	row("", p.SourceDigest)
	if p.Digest != "" {
		row("becomes", p.Image)
		row("", p.Digest)
	}
	if p.ImagePlan != nil {
		writeImagePlan(t, p.ImagePlan)
	}
	if p.Index != nil {
		for _, im := range p.Index.Images {
			fmt.Fprintf(t, "\n%s\t%s\n", im.Platform, im.SourceDigest)
			if im.Digest != "" {
				row("becomes", im.Digest)
			}
			writeImagePlan(t, im.ImagePlan)
		}
		writeKept(t, "Not changed", p.Index.Kept)
		writeList(t, "Warnings about the index", p.Index.Warnings)
	}
	writeList(t, "Dropped", p.Dropped)
	return t.Flush()
}

// writeKept prints what of an index stays as it is.
func writeKept(t io.Writer, title string, kept []image.Kept) {
	if len(kept) > 0 {
		fmt.Fprintf(t, "\n%s\n", title)
	}
	for _, k := range kept {
		fmt.Fprintf(t, "  %s\t%s\n", k.Name, k.Reason)
	}
}

func writeImagePlan(t io.Writer, p *image.ImagePlan) {
	row := func(cells ...string) { fmt.Fprintln(t, strings.Join(cells, "\t")) }
	section := func(title string) { fmt.Fprintf(t, "\n%s\n", title) }

	writeRuns(t, p.Platform, p.Interpreter, p.Command)
	writeDjango(t, p.Django)
	row("  distributions", fmt.Sprint(p.Distributions))

	section("OpenTelemetry")
	if p.Release.Version != "" {
		row("  release", p.Release.Version+"/"+p.Release.Contrib, p.Release.Reason)
	} else {
		row("  release", "none fits: the image cannot be wrapped as it is")
	}
	for _, r := range p.Release.Refused {
		title := "  not " + r.Versions[0]
		for _, reason := range r.Reasons {
			row(title, reason)
			title = ""
		}
		if n := len(r.Versions); n > 1 {
			row("", fmt.Sprintf("(so do %d more, down to %s)", n-1, r.Versions[n-1]))
		}
	}
	if p.Release.Version == "" {
		return
	}

	section("Instrumentations")
	for _, s := range p.Instrumentations {
		row("  "+s.Name, s.Reason)
	}
	if len(p.LeftOut) > 0 {
		section("Left out")
		for _, l := range p.LeftOut {
			row("  "+l.Name, l.Reason)
		}
	}

	section("Config")
	row("  ENTRYPOINT", quoted(p.Entrypoint))
	if len(p.Cmd) > 0 {
		row("  CMD", quoted(p.Cmd)+" (unchanged)")
	}
	endpoint := false
	for _, v := range p.Env {
		row("  ENV", v.Name+"="+v.Value, "("+v.Origin+")")
		endpoint = endpoint || v.Name == "OTEL_EXPORTER_OTLP_ENDPOINT"
	}
	if !endpoint {
		row("", "no endpoint: traces go to http://localhost:4318 unless OTEL_EXPORTER_OTLP_ENDPOINT is set when it runs")
	}

	section("Layers added")
	for _, l := range p.Layers {
		row("  "+l.Kind, l.Digest, size(l.Size), l.Brings)
	}
	writeList(t, "Notes", p.Notes)
	writeList(t, "Warnings", p.Warnings)
}

// writeRuns prints what an image starts, and how that was found out.
func writeRuns(t io.Writer, platform string, i image.Interpreter, c image.Command) {
	fmt.Fprintf(t, "\nWhat runs\n  command\t%s\n", quoted(c.Args))
	for _, s := range c.Steps {
		fmt.Fprintf(t, "\t%s\n", s)
	}
	if !c.Sure {
		fmt.Fprintln(t, "\tthe command does not settle which Python it starts")
	}
	fmt.Fprintf(t, "  interpreter\t%s (%s %s, %s)\n", i.Path, i.Implementation, i.Version, strings.Join(nonEmpty(platform, i.Libc), ", "))
	fmt.Fprintf(t, "\t%s\n", i.How)
}

// writeDjango prints which settings a Django project has.
func writeDjango(t io.Writer, d *image.Django) {
	switch {
	case d == nil:
	case d.Settings == "":
		fmt.Fprintf(t, "  Django settings\tone of %s\n", strings.Join(d.Others, ", "))
	case d.File == "":
		fmt.Fprintf(t, "  Django settings\t%s (%s)\n", d.Settings, d.Source)
	default:
		fmt.Fprintf(t, "  Django settings\t%s (%s), %s\n", d.Settings, d.Source, d.File)
	}
}

// writeList prints a section of lines, if there are any.
func writeList(t io.Writer, title string, lines []string) {
	if len(lines) > 0 {
		fmt.Fprintf(t, "\n%s\n", title)
	}
	for _, line := range lines {
		fmt.Fprintf(t, "  %s\n", line)
	}
}

// quoted prints a command the way a Dockerfile's exec form does.
func quoted(args []string) string {
	words := make([]string, len(args))
	for i, a := range args {
		words[i] = fmt.Sprintf("%q", a)
	}
	return "[" + strings.Join(words, ", ") + "]"
}

func nonEmpty(words ...string) []string {
	var kept []string
	for _, w := range words {
		if w != "" {
			kept = append(kept, w)
		}
	}
	return kept
}
