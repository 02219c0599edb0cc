package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/imgwrap/imgwrap/image/frontend"
)

// TestFrontendOptions compares the flags of wrap with the build arguments of the
// BuildKit frontend: there is one for each but for what a build does not decide.
func TestFrontendOptions(t *testing.T) {
	elsewhere := []string{
		"tag", "in-place", "dry-run", "output", "report", // where the result goes is the build's business
		"attestations", // those of a build are about its result
		"bytecode",     // it is in the cache of the command line alone
	}
	own := []string{"IMGWRAP_SYNTAX", "IMGWRAP_DISABLE"}
	options := frontend.Options()
	cmd := (&app{}).wrapCommand()
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		argument := "IMGWRAP_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if has, want := slices.Contains(options, argument), !slices.Contains(elsewhere, f.Name); has != want {
			t.Errorf("the frontend has %s: %v, want %v", argument, has, want)
		}
	})
	for _, o := range options {
		flag := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(o, "IMGWRAP_"), "_", "-"))
		if cmd.Flags().Lookup(flag) == nil && !slices.Contains(own, o) {
			t.Errorf("wrap has no --%s", flag)
		}
	}
}
