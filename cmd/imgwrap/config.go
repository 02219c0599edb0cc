package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/imgwrap/imgwrap/image/bulk"
)

// configure gives the flags that the command line leaves alone the values that
// the file of --config has for them. One file may serve several commands: what is
// a flag of another command is passed over.
func (a *app) configure(cmd *cobra.Command) error {
	if a.config == "" {
		return nil
	}
	content, err := os.ReadFile(a.config)
	if err != nil {
		return &usageError{fmt.Sprintf("reading --config: %v", err), "name a file that can be read"}
	}
	list, err := bulk.ParseOptions(a.config, content)
	if err == nil {
		err = list.CheckOptions(func(name string, values []string) error {
			f := cmd.Flags().Lookup(name)
			switch {
			case name == "config" || name == "help" || f == nil && !known(cmd.Root(), name):
				return &usageError{"there is no flag --" + name, "see imgwrap --help"}
			case f == nil || f.Changed:
				return nil
			}
			a.configured = append(a.configured, name)
			return setFlag(cmd.Flags(), name, values)
		})
	}
	return listUsage(err)
}

// known says whether a command, or one below it, has a flag.
func known(cmd *cobra.Command, name string) bool {
	return cmp.Or(cmd.LocalFlags().Lookup(name), cmd.PersistentFlags().Lookup(name)) != nil ||
		slices.ContainsFunc(cmd.Commands(), func(c *cobra.Command) bool { return known(c, name) })
}

// listUsage is an error of a list as one of usage.
func listUsage(err error) error {
	if e, ok := errors.AsType[*bulk.Error](err); ok {
		return &usageError{e.Error(), cmp.Or(e.Hint(), "see imgwrap --help")}
	}
	return err
}

// setFlag gives a flag its values, in place of those it has.
func setFlag(flags *pflag.FlagSet, name string, values []string) error {
	f := flags.Lookup(name)
	if f == nil {
		return fmt.Errorf("there is no flag --%s", name)
	}
	list, isList := f.Value.(pflag.SliceValue)
	if !isList && len(values) != 1 {
		return fmt.Errorf("--%s takes one value", name)
	}
	if isList && len(values) != 1 {
		if err := flags.Set(name, ""); err != nil { // it counts as given
			return err
		}
		return list.Replace(values)
	}
	if isList {
		if err := list.Replace(nil); err != nil { // what it is set to next is all that it has
			return err
		}
	}
	return flags.Set(name, values[0])
}

// changedFlags are the values of the flags that were given, in the form that
// setFlag takes.
func changedFlags(flags *pflag.FlagSet) map[string][]string {
	changed := map[string][]string{}
	flags.VisitAll(func(f *pflag.Flag) {
		if !f.Changed {
			return
		}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			changed[f.Name] = list.GetSlice()
			return
		}
		changed[f.Name] = []string{f.Value.String()}
	})
	return changed
}
