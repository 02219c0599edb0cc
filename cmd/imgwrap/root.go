package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/imgwrap/imgwrap/layer/catalog"
)

// streams is what the command shares with the outside. Results go to out,
// everything else to err.
type streams struct {
	out, err io.Writer
	getenv   func(string) string
}

// version is set by the linker for releases.
var version = ""

// imgwrapVersion is the version that goes into labels: the linker's, else the
// module's when installed with go install, else "devel". The pseudo-versions
// that Go makes up for builds in a checkout depend on how it was built.
func imgwrapVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		if v := info.Main.Version; v != "" && !strings.ContainsAny(v, "-+()") {
			return v
		}
	}
	return "devel"
}

// app is what the commands of one invocation have in common.
type app struct {
	streams
	log      *logrus.Logger
	catalog  func() (*catalog.Catalog, error)
	config   string // name of a file
	cacheDir string
	offline  bool
	insecure bool
	jobs     int
	// cacheSize limits the indexes of image layers. The rest of the cache is
	// needed offline.
	cacheSize byteSize
	// configured are the flags that the file of --config has set.
	configured []string
}

// run executes one command line and returns its exit code.
func run(ctx context.Context, args []string, s streams, releases func() (*catalog.Catalog, error)) int {
	a := &app{streams: s, log: logrus.New(), catalog: releases}
	a.log.SetOutput(s.err)
	a.log.SetFormatter(lineFormatter{})
	root := a.root()
	root.SetArgs(args)
	root.SetOut(s.out)
	root.SetErr(s.err)
	if err := root.ExecuteContext(ctx); err != nil {
		return report(s.err, err)
	}
	return exitOK
}

func (a *app) root() *cobra.Command {
	opts := &wrapFlags{}
	root := &cobra.Command{
		Use:   "imgwrap IMAGE",
		Short: "Add OpenTelemetry auto-instrumentation to an existing Python container image",
		Long: `imgwrap adds OpenTelemetry auto-instrumentation to an existing Python container
image, without its source, without a container engine and without running it.

It looks into the image, chooses the OpenTelemetry release and instrumentations
that fit what is there, appends them as layers behind the app's own packages,
and pushes the result as IMAGE's tag with "-otel". The only line on standard
output is the wrapped image, repository@digest.

Exit codes: 0 done or nothing to do, 1 failed (registry, network, disk), 2 usage,
3 refused (no Python, conflict, unsupported image), 4 a check did not hold,
5 some of several images could not be wrapped.`,
		Example: `  imgwrap registry.example.com/app:1.0 --endpoint http://collector:4318
  imgwrap plan registry.example.com/app:1.0`,
		Args:          oneImage,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(cmd *cobra.Command, args []string) error { return a.wrap(cmd, args[0], opts) },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.configure(cmd); err != nil {
				return err
			}
			if a.jobs < 1 {
				return &usageError{fmt.Sprintf("--jobs %d", a.jobs), "give a number from 1 on"}
			}
			return nil
		},
	}
	opts.register(root)
	flags := root.PersistentFlags()
	flags.StringVar(&a.config, "config", "", "YAML `FILE` of flags and their values, used where the command line does not give them")
	flags.StringVar(&a.cacheDir, "cache-dir", "", "directory for bundles, wheels and indexes of layers (default: the user's cache directory, or $IMGWRAP_CACHE_DIR)")
	a.cacheSize = defaultCacheSize
	flags.Var(&a.cacheSize, "cache-size", "how much of the cache may hold what is known of images, with K, M or G")
	flags.BoolVar(&a.offline, "offline", false, "use no package index: bundles must be in the cache or the registry")
	flags.BoolVar(&a.insecure, "insecure", false, "allow registries over plain HTTP or with unknown certificates")
	flags.IntVar(&a.jobs, "jobs", 4, "how many layers are read or pushed at the same time")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return &usageError{err.Error(), "see imgwrap --help"}
	})
	root.AddCommand(a.wrapCommand(), a.planCommand(), a.inspectCommand(), a.verifyCommand(), a.unwrapCommand(), a.bulkCommand(), a.dockerfileCommand(), a.requirementsCommand(), a.promoteCommand(), a.layerCommand(), a.cacheCommand(), a.versionCommand())
	root.CompletionOptions.HiddenDefaultCmd = false
	return root
}

// noArgs is cobra.NoArgs as a usage error.
func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return &usageError{"unexpected argument " + args[0], "see imgwrap --help"}
	}
	return nil
}

// oneImage is cobra.ExactArgs(1) with an error that says what is wanted.
func oneImage(cmd *cobra.Command, args []string) error {
	usage := "usage: imgwrap " + strings.TrimPrefix(cmd.Use, "imgwrap ")
	switch {
	case len(args) == 0:
		return &usageError{"no image given", usage}
	case len(args) > 1:
		return &usageError{"unexpected argument " + args[1], usage}
	}
	return nil
}

// cache returns the directory for what imgwrap keeps between runs.
func (a *app) cache() (string, error) {
	if a.cacheDir != "" {
		return a.cacheDir, nil
	}
	if dir := a.getenv("IMGWRAP_CACHE_DIR"); dir != "" {
		return dir, nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", &usageError{"no cache directory: " + err.Error(), "give one with --cache-dir"}
	}
	return filepath.Join(dir, "imgwrap"), nil
}

// terminal says whether progress bars make sense.
func (a *app) terminal() bool {
	f, ok := a.err.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
