-- :CharRnn: the server's commands, and what it answers in words.
local api = vim.api
local M = {}

local function call(...) return require('lsp_charrnn.own').call(...) end

---@param sentence string
---@param level? integer
local function say(sentence, level) vim.notify('lsp-charrnn: ' .. sentence, level or vim.log.levels.INFO) end

--- The client of the current buffer, else any; says so where there is none.
---@return vim.lsp.Client?
local function client()
  local here = vim.lsp.get_clients({ bufnr = 0, name = 'lsp_charrnn' })[1]
  local found = here or vim.lsp.get_clients({ name = 'lsp_charrnn' })[1]
  if not found then say('no server is running: see :checkhealth lsp_charrnn', vim.log.levels.WARN) end
  return found
end

--- Run a command of the server; what goes wrong is said.
---@param name string
---@param arguments any[]
---@param on_result? fun(result: any, client: vim.lsp.Client)
local function run(name, arguments, on_result)
  local to = client()
  if not to then return end
  local params = { command = 'lspCharrnn.' .. name, arguments = arguments }
  call(to, 'request', 'workspace/executeCommand', params, function(err, result)
    if err then
      say(err.message, vim.log.levels.ERROR)
    elseif on_result then
      on_result(result, to)
    end
  end)
end

--- The server's status; with what it does with the current buffer, where that is attached.
local function status(on_result)
  local attached = #vim.lsp.get_clients({ bufnr = 0, name = 'lsp_charrnn' }) > 0
  run('status', attached and { vim.uri_from_bufnr(0) } or {}, on_result)
end

--- The command that starts the server, with another subcommand.
---@param ... string
---@return string[]
function M.program(...)
  local command = vim.lsp.config and vim.lsp.config.lsp_charrnn.cmd or vim.g.lsp_charrnn_cmd
  local program = {}
  for _, word in ipairs(type(command) == 'table' and command or { 'lsp-charrnn', 'serve' }) do
    if word == 'serve' then break end
    program[#program + 1] = word
  end
  return vim.list_extend(program, { ... })
end

local function use_model(name)
  for _, to in ipairs(vim.lsp.get_clients({ name = 'lsp_charrnn' })) do
    to.settings = vim.tbl_deep_extend('force', to.settings or {}, { lspCharrnn = { model = name } })
    to.config.settings = to.settings -- for when it is started again
    call(to, 'notify', 'workspace/didChangeConfiguration', { settings = to.settings })
  end
end

local commands = {}

function commands.toggle(language)
  run('toggle', { language }, function(result)
    require('lsp_charrnn').dismiss()
    say((result.enabled and 'on' or 'off') .. (language and ' for ' .. language or ''))
  end)
end

function commands.status()
  status(function(result)
    local lines = { result.state .. (type(result.problem) == 'string' and ': ' .. result.problem or '') }
    if type(result.off) == 'string' then lines[#lines + 1] = 'this file is not completed: ' .. result.off end
    for _, model in ipairs(result.models) do
      lines[#lines + 1] = ('model %s for %s, %.1f MB'):format(model.name, model.language, model.bytes / 1e6)
    end
    for _, project in ipairs(result.projects) do
      lines[#lines + 1] = ('project %s%s'):format(project.root, project.ready and '' or ', being read')
    end
    for _, training in ipairs(result.trainings) do
      lines[#lines + 1] = ('training on %s: %s, %.0f %%'):format(training.root, training.phase, 100 * training.share)
    end
    say(table.concat(lines, '\n'))
  end)
end

function commands.stats()
  status(function(result)
    local all = result.statistics
    local said = '%d suggestions shown, %d accepted, %d characters saved; answers in %s ms (median), %s ms (95 of 100)'
    local latency = all.latencyMs
    local function ms(value) return type(value) == 'number' and value or '?' end -- null before the first answer
    say(said:format(all.shown, all.accepted, all.charactersSaved, ms(latency.p50), ms(latency.p95)))
  end)
end

function commands.train(argument)
  if argument == 'stop' then
    return run('cancelTraining', {}, function(result)
      if #result.cancelled == 0 then say('no training is under way') end
    end)
  end
  local minutes = tonumber(argument)
  if argument and not minutes then return say(':CharRnn train takes minutes, or stop', vim.log.levels.ERROR) end
  local to = client()
  if not to then return end
  local wanted = vim.empty_dict()
  wanted.minutes, wanted.root = minutes, to.config.root_dir and vim.uri_from_fname(to.config.root_dir)
  say('training; :CharRnn train stop ends it, and leaves what it has learned for the next time')
  run('train', { wanted }) -- how it ends the server says itself, by a message
end

function commands.explore()
  status(function(result)
    vim.cmd.new()
    api.nvim_buf_set_lines(0, 0, -1, true, vim.split(vim.inspect(result), '\n'))
    vim.bo.buftype, vim.bo.bufhidden, vim.bo.filetype, vim.bo.modifiable = 'nofile', 'wipe', 'lua', false
  end)
end

function commands.model(name)
  if name then return use_model(name == 'default' and '' or name) end
  local models = M.models()
  table.insert(models, 1, 'default')
  vim.ui.select(models, { prompt = 'lsp-charrnn: model' }, function(chosen)
    if chosen then use_model(chosen == 'default' and '' or chosen) end
  end)
end

--- The names of the models that the server would find.
---@return string[]
function M.models()
  local started, process = pcall(vim.system, M.program('models', 'list', '--json'), { text = true })
  local ran = started and process:wait(20000)
  local read, rows = pcall(vim.json.decode, ran and ran.stdout or '')
  if not read then return {} end
  local names = {}
  for _, row in ipairs(rows) do
    if row.project == vim.NIL and row.problem == '' and not vim.list_contains(names, row.name) then
      names[#names + 1] = row.name
    end
  end
  return names
end

---@param words string[]
function M.run(words)
  local command = commands[words[1]]
  if not command or #words > 2 then
    return say(':CharRnn takes one of ' .. table.concat(M.complete('', 'CharRnn '), ', '), vim.log.levels.ERROR)
  end
  command(words[2])
end

---@param lead string what is typed of the word
---@param line string
---@return string[]
function M.complete(lead, line)
  local words = vim.split(vim.trim(line:sub(1, #line - #lead)), '%s+')
  local of = {
    train = function() return { 'stop' } end,
    model = function() return vim.list_extend({ 'default' }, M.models()) end,
    toggle = function()
      local here = vim.lsp.get_clients({ bufnr = 0, name = 'lsp_charrnn' })[1]
      return here and { here.config.get_language_id(0, vim.bo.filetype) } or {}
    end,
  }
  local choices = {}
  if #words == 1 then
    choices = vim.tbl_keys(commands)
    table.sort(choices)
  elseif #words == 2 and of[words[2]] then
    choices = of[words[2]]()
  end
  return vim.tbl_filter(function(choice) return vim.startswith(choice, lead) end, choices)
end

--- Show how far a training has come, in the message line.
---@param value { kind: string, title?: string, message?: string, percentage?: integer }
function M.show_progress(value)
  if not vim.startswith(value.title or '', 'Training on ') then return end
  local text = value.kind == 'end' and '' or ('%s: %d %% %s'):format(value.title, value.percentage or 0, value.message or '')
  api.nvim_echo({ { text:sub(1, math.max(vim.v.echospace, 20)) } }, false, {})
end

return M
