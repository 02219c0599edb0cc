package frontend

import (
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

func TestLine(t *testing.T) {
	for _, tt := range []struct {
		file, target, variable string
		want                   int32 // 0 for none
	}{
		{"FROM a\nENV A=1 B=2\nCMD x", "", "B", 2},
		{"FROM a\nENV A=B C=3\nENV B=1\nCMD x", "", "B", 3},
		{"FROM a\nENV A=B\nCMD x", "", "B", 0},
		{"FROM a\nENV B and more\nCMD x", "", "B", 2},
		{"FROM a\nENV A=1 \\\n  B=2\nCMD x", "", "B", 2},
		{"FROM a AS base\nENV B=1\nFROM base\nENV A=1", "", "B", 2},
		{"FROM a AS base\nENV B=1\nFROM c\nENV A=1", "", "B", 0},
		{"FROM a\nENV B=1\nENV B=2", "", "B", 3},
		{"FROM a\nCMD x\nENTRYPOINT y\nRUN z", "", "", 3},
		{"FROM a\nCMD x\nRUN z", "", "", 2},
		{"FROM a\nRUN z", "", "", 1},
		{"FROM a AS one\nCMD x\nFROM b\nCMD y", "one", "", 2},
	} {
		parsed, err := parser.Parse(strings.NewReader(tt.file))
		if err != nil {
			t.Fatal(err)
		}
		d := &dockerfile{commands: targetCommands(parsed.AST.Children, tt.target)}
		got := int32(0)
		if ranges := d.line(tt.variable); ranges != nil {
			got = ranges[0].Start.Line
		}
		if got != tt.want {
			t.Errorf("line of %q in %q is %d, want %d", tt.variable, tt.file, got, tt.want)
		}
	}
}
