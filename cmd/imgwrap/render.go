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
	section := func(title string) { fmt.Fprintf(t, "\n%s\n", title) }

	row("image", p.Source)
	row("", p.SourceDigest)
	if p.Digest != "" {
		row("becomes", p.Image)
		row("", p.Digest)
	}

	section("What runs")
	row("  command", quoted(p.Command.Args))
	for _, s := range p.Command.Steps {
		row("", s)
	}
	i := p.Interpreter
	row("  interpreter", fmt.Sprintf("%s (%s %s, %s)", i.Path, i.Implementation, i.Version, strings.Join(nonEmpty(p.Platform, i.Libc), ", ")))
	row("", i.How)
	row("  distributions", fmt.Sprint(p.Distributions))

	section("OpenTelemetry")
	if p.Digest != "" {
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
	if p.Digest == "" {
		return t.Flush()
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
	for _, v := range p.Env {
		row("  ENV", v.Name+"="+v.Value, "("+v.Origin+")")
	}

	section("Layers added")
	for _, l := range p.Layers {
		row("  "+l.Kind, l.Digest, size(l.Size))
	}
	for _, list := range []struct {
		title string
		lines []string
	}{{"Dropped", p.Dropped}, {"Warnings", p.Warnings}} {
		if len(list.lines) == 0 {
			continue
		}
		section(list.title)
		for _, line := range list.lines {
			row("  " + line)
		}
	}
	return t.Flush()
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
