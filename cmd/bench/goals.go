package main

import (
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/imgwrap/imgwrap/cmd/internal/wire"
)

// writeGoals puts what was measured beside what is to be reached.
func writeGoals(w io.Writer, costs map[string]cost, traffic map[string]wire.Traffic) error {
	t := table{header: []string{"", "goal", "wall", "CPU"}}
	compare := func(what, goal string, a, b cost) {
		t.add(what, goal, ratio(a.Wall, b.Wall), ratio(a.CPU, b.CPU))
	}
	compare("image seen before, to `crane append`, `crane mutate`", "≤ 1.00", costs[other], costs[changed])
	compare("nothing to do, to `crane append`, `crane mutate`", "≤ 1.00", costs[again], costs[changed])
	compare("image never seen, to `crane export`, `tar -t`", "≤ 0.30", costs[known], costs[exported])
	compare("image and bundle never seen, to `crane export`, `tar -t`", "≤ 0.30", costs[first], costs[exported])
	if pip, ok := costs[installed]; ok {
		compare("pip, to image and bundle never seen", "≥ 25", pip, costs[first])
		compare("pip, to image seen before", "≥ 100", pip, costs[other])
	}
	if err := t.write(w, "Ratios"); err != nil {
		return err
	}
	var peak float64
	for _, name := range []string{first, known, again, other} {
		peak = max(peak, costs[name].Memory)
	}
	seen := traffic[other]
	t = table{header: []string{"", "goal", "reached"}}
	t.add("peak memory of imgwrap, MiB", "≤ 64", fmt.Sprintf("%.0f", peak))
	t.add("image seen before: sent, kB", "≤ 20", kilobytes(seen.Total().Sent))
	t.add("image seen before: layers read", "0", fmt.Sprint(seen.Kinds["GET layer"].Requests))
	t.add("image seen before: round trips, one after the other", "≤ 5", fmt.Sprint(seen.Rounds))
	return t.write(w, "Limits")
}

// writeTraffic lists requests by kind, for each way.
func writeTraffic(w io.Writer, ways []way, traffic map[string]wire.Traffic) error {
	kinds := map[string]bool{}
	t := table{header: []string{"requests"}}
	for _, way := range ways {
		t.header = append(t.header, way.name)
		for kind := range traffic[way.name].Kinds {
			kinds[kind] = true
		}
	}
	row := func(name string, cell func(wire.Traffic) string) {
		cells := []string{name}
		for _, way := range ways {
			cells = append(cells, cell(traffic[way.name]))
		}
		t.add(cells...)
	}
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		row(kind, func(tr wire.Traffic) string {
			if n := tr.Kinds[kind].Requests; n > 0 {
				return fmt.Sprint(n)
			}
			return ""
		})
	}
	row("round trips, one after the other", func(tr wire.Traffic) string { return fmt.Sprint(tr.Rounds) })
	row("sent, kB", func(tr wire.Traffic) string { return kilobytes(tr.Total().Sent) })
	row("received, kB", func(tr wire.Traffic) string { return kilobytes(tr.Total().Received) })
	return t.write(w, "What passes between client and registry, bytes of bodies")
}

func kilobytes(bytes int64) string { return fmt.Sprintf("%.1f", float64(bytes)/1000) }
