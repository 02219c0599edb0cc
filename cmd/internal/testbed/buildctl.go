package testbed

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// Progress is what BuildKit said while it built.
type Progress struct {
	Steps    []Step
	Warnings []Warning
}

// Step is something that BuildKit did, or looked up in its cache.
type Step struct {
	Name   string
	Cached bool
}

// Warning is one that a frontend gave.
type Warning struct {
	Text string // its first line
	Line int    // of the Dockerfile, from 1 on; 0 for none
}

// Buildctl runs buildctl build with these arguments and returns its progress and
// what it wrote to stdout. The error of a build that failed has all that buildctl
// said about it.
func (k *BuildKit) Buildctl(ctx context.Context, args ...string) (*Progress, string, error) {
	var stdout, stderr bytes.Buffer
	cmd := command(ctx, nil, append([]string{k.client, "--addr=" + k.addr(), "build", "--progress=rawjson"}, args...)...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	runErr := cmd.Run()
	p, rest, err := readProgress(stderr.Bytes())
	if runErr != nil {
		return p, "", fmt.Errorf("running buildctl build %s: %w\n%s", strings.Join(args, " "), runErr, rest)
	}
	return p, stdout.String(), err
}

// readProgress reads the JSON documents that buildctl writes to stderr (SolveStatus
// in github.com/moby/buildkit/client), and returns what else is there.
func readProgress(raw []byte) (*Progress, string, error) {
	p := &Progress{}
	steps := map[string]int{}
	var rest []string
	for line := range bytes.Lines(raw) {
		var status struct {
			Vertexes []struct {
				Digest, Name string
				Cached       bool
			}
			Warnings []struct {
				Short []byte
				Range []struct{ Start struct{ Line int } }
			}
		}
		d := json.NewDecoder(bytes.NewReader(line))
		if err := d.Decode(&status); err != nil {
			if text := strings.TrimSpace(string(line)); text != "" && err != io.EOF {
				rest = append(rest, text)
			}
			continue
		}
		for _, v := range status.Vertexes {
			i, ok := steps[v.Digest]
			if !ok {
				i = len(p.Steps)
				steps[v.Digest] = i
				p.Steps = append(p.Steps, Step{Name: v.Name})
			}
			p.Steps[i].Cached = p.Steps[i].Cached || v.Cached
		}
		for _, w := range status.Warnings {
			warning := Warning{Text: string(w.Short)}
			if len(w.Range) > 0 {
				warning.Line = w.Range[0].Start.Line
			}
			p.Warnings = append(p.Warnings, warning)
		}
	}
	return p, strings.Join(rest, "\n"), nil
}
